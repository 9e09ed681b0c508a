"""The document of the interface, checked in and true to the program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from metalmark.server import describe

ROOT = Path(__file__).parents[3]
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return describe()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


def test_what_is_checked_in_is_what_the_program_says(document: dict[str, Any]) -> None:
    checked_in = json.loads((ROOT / "docs/reference/openapi.json").read_text(encoding="utf-8"))
    named = {name for name, _ in operations(document)}
    assert {name for name, _ in operations(checked_in)} ^ named == set()
    assert checked_in == json.loads(json.dumps(document)), "run scripts/write-reference"


def test_every_operation_says_what_it_does_and_how_it_answers(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert operation.get("description"), name
        statuses = set(operation["responses"])
        assert {"4XX", "5XX"} < statuses, name
        assert any(status.startswith("2") or status == "101" for status in statuses), name
        assert "422" not in statuses, name
        assert "security" in operation, name


def test_names_of_operations_are_all_different(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(names)) == len(names)


def test_what_needs_a_user_says_so_and_what_anyone_may_ask_does_too(document: dict[str, Any]) -> None:
    security = {name: operation["security"] for name, operation in operations(document)}
    assert security["GET /v0/server/config"] == [{"bearer": []}]
    assert security["GET /v0/server/version"] == []
    assert security["GET /v0/projects/{project}"] == [{}, {"bearer": []}]


def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            inner = [found for value in node.values() for found in references(value)]
            return [*inner, node["$ref"]] if isinstance(node.get("$ref"), str) else inner
        return [found for value in node for found in references(value)] if isinstance(node, list) else []

    for reference in set(references(document)):
        target: Any = document
        for word in reference.removeprefix("#/").split("/"):
            assert word in target, reference
            target = target[word]


def test_schemas_are_schemas(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
