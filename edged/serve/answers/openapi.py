"""The OpenAPI 3.1 description, as it is served at /openapi.json."""

from __future__ import annotations

import json
from importlib.resources import files

from edged.serve.answers.negotiate import Format
from edged.version import VERSION

OPENAPI_FORMATS = (
    Format("openapi", "application/json"),
    Format("openapi", "application/vnd.oai.openapi+json"),
)


def load_openapi() -> bytes:
    """The description in the package, with the version that is running."""
    document = json.loads(files("edged.serve.answers").joinpath("openapi.json").read_bytes())
    document["info"]["version"] = VERSION
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


OPENAPI = load_openapi()
