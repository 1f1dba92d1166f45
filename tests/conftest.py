"""Profiles of the property tests: `fast` repeats the same examples each run, `deep` (make fuzz) looks for new ones."""

from hypothesis import HealthCheck, settings

# A loaded machine is slow at random; neither a deadline nor a slow generator says anything about the code.
settings.register_profile("fast", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "deep", deadline=None, max_examples=5_000, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("fast")
