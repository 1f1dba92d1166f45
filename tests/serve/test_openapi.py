"""The description at /openapi.json says what the handlers do."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import msgspec
import pytest

from edged.serve.answers.query import (
    CHANGES_PARAMETERS,
    DICTIONARY_PARAMETERS,
    LIST_PARAMETERS,
    MAX_KEYS,
    MAX_LIMIT,
    MAX_WAIT_S,
    RECORD_PARAMETERS,
)
from edged.version import VERSION
from tests.serve.asking import ask, field_of, make_service
from tests.serve.memory import make_dataset

SOMETIMES = {"Link", "Use-As-Dictionary", "Edged-Total", "Edged-Warning", "Edged-Time", "Edged-Next-Change"}
SERVICE = make_service({"catalog": make_dataset()})
DESCRIPTION: dict[str, Any] = json.loads(ask(SERVICE, "/openapi.json").body)
EXAMPLES = {
    "/openapi.json": "/openapi.json",
    "/v1": "/v1",
    "/v1/{dataset}": "/v1/catalog",
    "/v1/{dataset}/{collection}/{key}": "/v1/catalog/titles/1997/Film_0007",
    "/v1/{dataset}/{collection}": "/v1/catalog/titles?limit=3",
    "/v1/{dataset}/changes": "/v1/catalog/changes?since=1",
}


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        found: Any = DESCRIPTION
        for step in node["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        node = found
    return node


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [name for value in node.values() for name in references(value)]
    return [name for value in node for name in references(value)] if isinstance(node, list) else []


def test_it_names_the_release_and_every_reference_leads_somewhere() -> None:
    assert DESCRIPTION["openapi"].startswith("3.1")
    assert DESCRIPTION["info"]["version"] == VERSION
    assert set(DESCRIPTION["paths"]) == set(EXAMPLES)
    for name in references(DESCRIPTION):
        assert resolve({"$ref": name}), name


@pytest.mark.parametrize("path", EXAMPLES)
def test_answers_have_the_described_formats_fields_and_schema(path: str) -> None:
    for method in ("get", "head"):
        operation = DESCRIPTION["paths"][path][method]
        described = operation["responses"]["200"]
        for media in described.get("content", {"*/*": {}}):
            if media in ("text/event-stream", "application/octet-stream"):  # these are asked for in ways of their own
                continue
            found = ask(SERVICE, EXAMPLES[path], {"Accept": media}, method=method.upper())
            assert found.status == 200
            names = {name.decode() for name, _ in found.fields}
            names |= {name.decode() for name, _ in found.timed.fields(0)}
            assert set(described["headers"]) <= names | SOMETIMES
            if media == "application/json":
                schema = {**described["content"][media]["schema"], "components": DESCRIPTION["components"]}
                jsonschema.validate(msgspec.json.decode(found.body), schema)
                assert field_of(found, "content-type") == media


def test_examples_of_the_description_fit_its_schemas() -> None:
    for operations in DESCRIPTION["paths"].values():
        for part in operations["get"]["responses"]["200"]["content"].values():
            if isinstance(part.get("example"), dict):
                jsonschema.validate(part["example"], {**part["schema"], "components": DESCRIPTION["components"]})
    for response in DESCRIPTION["components"]["responses"].values():
        for part in response.get("content", {}).values():
            jsonschema.validate(part["example"], {**part["schema"], "components": DESCRIPTION["components"]})


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/v1/{dataset}", frozenset()),
        ("/v1/{dataset}/{collection}/{key}", RECORD_PARAMETERS),
        ("/v1/{dataset}/{collection}", LIST_PARAMETERS | DICTIONARY_PARAMETERS | {"where"}),
        ("/v1/{dataset}/changes", CHANGES_PARAMETERS),
    ],
)
def test_the_parameters_described_are_those_taken(path: str, known: frozenset[str]) -> None:
    parameters = [resolve(parameter) for parameter in DESCRIPTION["paths"][path]["get"]["parameters"]]
    assert {parameter["name"] for parameter in parameters if parameter["in"] == "query"} == known
    limits = {parameter["name"]: parameter["schema"] for parameter in parameters}
    assert limits.get("limit", {}).get("maximum", MAX_LIMIT) == MAX_LIMIT
    assert limits.get("keys", {}).get("maxItems", MAX_KEYS) == MAX_KEYS
    assert limits.get("wait", {}).get("maximum", MAX_WAIT_S) == MAX_WAIT_S
