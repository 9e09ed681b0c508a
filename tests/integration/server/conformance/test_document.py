"""The OpenAPI document against the running server: random requests, and every field of every body of a wrong type."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

METHODS = ("get", "post", "put", "patch", "delete")
STREAMS = re.compile(r"/channel$|^/metrics$|/v0/server/spec$|/v0/server/backup$")
"""What is no request with an answer of JSON, or costs too much for a thousand of them."""

schemathesis.checks.load_all_checks()
CHECKS = schemathesis.checks.CHECKS.get_by_names(
    ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
)

EVENT_CHECKS = [check for check in CHECKS if check.__name__ != "response_schema_conformance"]
"""A stream of events is text in the document; the channel's page says what the events are."""


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield method.upper(), path, item[method]


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def targets(world: Any) -> dict[str, list[str]]:
    """Values of path parameters that name something, for this suite alone: much of it is deleted on the way."""
    person = world.make_user()
    organization = world._made("/v0/organizations", {"name": world.name("Fuzzed")}, by=world.owner.jwt)
    project = world.make_project(organization=organization["slug"])
    spec, runner = world.make_spec(), world.make_runner()
    report = world.run(project=project["slug"], job={"image": world.image, "spec": spec["uuid"]}).json()
    key = world.make_project_key(project)
    return {
        "user": [person.slug, person.uuid],
        "organization": [organization["slug"], organization["uuid"]],
        "project": [project["slug"], project["uuid"]],
        "spec": [spec["slug"]],
        "runner": [runner["uuid"]],
        "report": [report["uuid"]],
        "job": [report["job"]],
        "branch": [report["branch"]["slug"]],
        "testbed": [report["testbed"]["uuid"]],
        "key": [key["uuid"]],
        "permission": ["view", "manage"],
    }


def test_the_document_is_whole(world: Any) -> None:
    document = world.get("/v0/server/spec").json()
    assert document["openapi"].startswith("3.")
    missing = []
    for method, path, operation in operations(document):
        codes = set(operation["responses"])
        if not any(code.startswith("2") or code == "101" for code in codes):
            missing.append(f"{method} {path} has no success")
        if method in {"POST", "PATCH", "PUT"} and "requestBody" in operation and not codes & {"400", "4XX"}:
            missing.append(f"{method} {path} does not say what a bad body is answered with")
        if "422" in codes:
            missing.append(f"{method} {path} says 422")
        declared = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
        if declared != set(re.findall(r"{(\w+)}", path)):
            missing.append(f"{method} {path} does not declare its path's parameters")
        if not operation.get("operationId") or not operation.get("summary"):
            missing.append(f"{method} {path} has no name")
    assert missing == []
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))


def test_every_route_of_the_public_cli_is_in_the_document(world: Any) -> None:
    from metalmark.testing.public_calls import PUBLIC_CALLS

    known = {
        (method, re.sub(r"{\w+}", "{}", path)) for method, path, _ in operations(world.get("/v0/server/spec").json())
    }
    wanted = {(call.method, re.sub(r"{\w+}", "{}", call.path)) for call in PUBLIC_CALLS.values()}
    assert wanted - known == set()


@pytest.mark.parametrize(
    ("caller", "mode"),
    [
        ("nobody", GenerationMode.POSITIVE),
        ("user", GenerationMode.POSITIVE),
        ("administrator", GenerationMode.POSITIVE),
        ("administrator", GenerationMode.NEGATIVE),
    ],
)
def test_random_requests_get_documented_answers(world: Any, caller: str, mode: GenerationMode, soak: bool) -> None:
    document = world.get("/v0/server/spec").json()
    schema = schemathesis.openapi.from_dict(document)
    credential = {"nobody": None, "user": world.owner.jwt, "administrator": world.admin.jwt}[caller]
    headers = {} if credential is None else {"Authorization": f"Bearer {credential}"}
    known = targets(world)
    chosen = random.Random(caller)
    faults: list[str] = []
    for found in schema.get_all_operations():
        operation = found.ok()
        if STREAMS.search(operation.path):
            continue
        try:
            strategy = operation.as_strategy(generation_mode=mode)
            strategy.validate()
        except Exception as error:
            if mode is GenerationMode.NEGATIVE and "negative" in str(error).lower():
                continue
            raise

        @settings(
            max_examples=200 if soak else 3,
            deadline=None,
            database=None,
            derandomize=not soak,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(data=st.data(), strategy=st.just(strategy))
        def attempt(data: Any, strategy: Any) -> None:
            case = data.draw(strategy)
            for name in case.path_parameters or {}:
                if name in known and chosen.random() < 0.7:
                    case.path_parameters[name] = chosen.choice(known[name])
            if "follow" in (case.query or {}):
                case.query["follow"] = "false"
            answer = case.call(base_url=world.url, headers=headers, timeout=20)
            try:
                case.validate_response(answer, checks=EVENT_CHECKS if case.path.endswith("/output") else CHECKS)
            except Exception as fault:  # noqa: BLE001 - a group of failures of several classes
                faults.append(f"{case.method} {answer.request.url} {answer.status_code}: {fault}"[:1500])

        try:
            attempt()
        except hypothesis.errors.Unsatisfiable:
            continue
    assert faults == []


WRONG: list[object] = [
    None,
    True,
    -1,
    0,
    1.5,
    2**63,
    10**30,
    "",
    " ",
    "\x00",
    "a" * 5000,
    "é\u202e",
    [],
    [[]],
    {},
    {"a": 1},
]


@cache
def wrong_for(kind: str | None) -> list[object]:
    """Values that are of another type than a field's."""
    types = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}
    if kind is None:
        return WRONG
    wanted: Any = types[kind]
    return [
        one
        for one in WRONG
        if one is not None and (not isinstance(one, wanted) or (isinstance(one, bool) and kind != "boolean"))
    ]


def good_body(document: dict[str, Any], schema: dict[str, Any], depth: int = 0) -> Any:
    """The smallest value of a schema."""
    schema = resolved(document, schema)
    for group in ("anyOf", "oneOf", "allOf"):
        if group in schema:
            return good_body(document, schema[group][0], depth)
    if "enum" in schema or "const" in schema:
        return schema.get("const", (schema.get("enum") or [None])[0])
    if "examples" in schema:
        return schema["examples"][0]
    kind = schema.get("type")
    if kind == "object":
        required = schema.get("required", [])
        properties = schema.get("properties", {})
        return {name: good_body(document, properties[name], depth + 1) for name in required}
    if kind == "array":
        return []
    if kind == "string":
        formats = {
            "date-time": "2026-01-01T00:00:00Z",
            "uuid": "0197c3d4-0000-7000-8000-000000000001",
            "email": "a@example.com",
            "uri": "https://example.com/",
        }
        return formats.get(schema.get("format", ""), "name")
    return {"integer": max(1, schema.get("minimum", 1)), "number": 1.5, "boolean": True}.get(kind or "")


def test_every_field_of_every_body_of_another_type_is_refused(world: Any) -> None:
    """A value of a type that the document does not name for a field is 400 everywhere, and never an internal fault."""
    document = world.get("/v0/server/spec").json()
    known = targets(world)
    surprises, tried = [], 0
    for method, path, operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" not in content:
            continue
        schema = resolved(document, content["application/json"]["schema"])
        at = re.sub(r"{(\w+)}", lambda match: known.get(match[1], ["there-is-none"])[0], path)
        base = good_body(document, schema)
        for name, property_ in schema.get("properties", {}).items():
            kinds = kinds_of(document, property_)
            if kinds is None:
                continue
            wrong = set.intersection(*({repr(one) for one in wrong_for(kind)} for kind in kinds))
            for value in WRONG:
                if repr(value) not in wrong:
                    continue
                body = {**copy.deepcopy(base), name: value}
                answer = world.call(method, at, json=body, by=world.admin.jwt)
                tried += 1
                if answer.status_code != 400 and answer.status_code not in {404, 403}:
                    surprises.append(f"{method} {path} {name}={value!r:.40}: {answer.status_code}")
    assert tried > 100
    assert surprises == []


def kinds_of(document: dict[str, Any], schema: dict[str, Any]) -> list[str] | None:
    """The JSON types that a field may have, beside null; none where the document leaves it open."""
    schema = resolved(document, schema)
    if "anyOf" in schema or "oneOf" in schema:
        found: list[str] = []
        for one in schema.get("anyOf", schema.get("oneOf", [])):
            inner = kinds_of(document, one)
            if inner is None:
                return None
            found += inner
        return found
    if "allOf" in schema:
        return kinds_of(document, schema["allOf"][0])
    kind = schema.get("type")
    if isinstance(kind, list):
        return [one for one in kind if one != "null"]
    if kind == "null":
        return []
    if kind is None and "enum" in schema:
        return ["string"]
    return None if kind is None else [kind]
