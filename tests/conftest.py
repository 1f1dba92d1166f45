"""Profiles of the property tests: `fast` repeats the same examples each run, `deep` (make fuzz) looks for new ones."""

import os

from hypothesis import HealthCheck, settings

# The processes that tests start run at full speed: what counts towards the coverage is what runs in the tests' own.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)

# A loaded machine is slow at random; neither a deadline nor a slow generator says anything about the code.
settings.register_profile(
    "fast", deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "deep", deadline=None, max_examples=1_500, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("fast")

# Of what would take hours each long run takes a share: by this, which `make fuzz` says and takes another of each day.
FUZZ_SEED = int(os.environ.get("EDGED_FUZZ_SEED", "1"))
