"""What every route has in common: paths, media types, bodies, headers, error bodies."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

LISTS = ["/v0/projects", "/v0/organizations", "/v0/users", "/v0/runners", "/v0/specs"]


def test_the_root_answers_null(world: Any) -> None:
    answer = world.get("/")
    assert (answer.status_code, answer.json()) == (200, None)


def test_the_version_is_the_public_one_with_our_own_beside_it(world: Any) -> None:
    answer = world.get("/v0/server/version")
    assert answer.json()["version"] == "0.6.12"
    assert [name for name in answer.json() if name != "version"] != []


@pytest.mark.parametrize(
    "path",
    [
        "/v0/server/version/",
        "//v0/server/version",
        "/v0//server///version",
        "/v0/server/version//",
        "/v0/%73erver/version",
    ],
)
def test_slashes_collapse_and_segments_are_decoded(world: Any, path: str) -> None:
    assert world.raw("GET", path).status == 200


@pytest.mark.parametrize(
    "path", ["/v0/./server/version", "/v0/x/../server/version", "/v0/server/%2e%2e/server/version", "/.."]
)
def test_dot_segments_are_refused(world: Any, path: str) -> None:
    assert world.raw("GET", path).status == 400


@pytest.mark.parametrize("path", ["/v1", "/v0", "/v0/nothing", "/v0/projects/x/nothing", "/favicon.ico", "/v0/plan"])
def test_an_unknown_route_is_404_with_an_error_body(world: Any, path: str) -> None:
    assert world.get(path, by=world.admin.jwt).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v0/projects", {"GET"}),
        ("PUT", "/v0/run", {"POST"}),
        ("GET", "/v0/run", {"POST"}),
        ("DELETE", "/v0/runners/some-runner", {"GET", "PATCH"}),
        ("POST", "/v0/server/version", {"GET"}),
    ],
)
def test_a_wrong_method_is_405_and_says_what_is_allowed(world: Any, method: str, path: str, allowed: set[str]) -> None:
    answer = world.call(method, path, by=world.admin.jwt)
    assert answer.status_code == 405
    named = {name.strip() for name in answer.headers["allow"].split(",")}
    assert allowed <= named
    assert method not in named


@pytest.mark.parametrize("path", ["/v0/projects", "/v0/server/version"])
def test_head_is_not_registered(world: Any, path: str) -> None:
    assert world.raw("HEAD", path).status == 405


def test_every_request_has_an_identifier_of_its_own(world: Any) -> None:
    seen = {world.get("/v0/server/version").headers["x-request-id"] for _ in range(5)}
    assert len(seen) == 5
    assert all(uuid.UUID(identifier) for identifier in seen)


def test_a_callers_request_identifier_is_not_trusted(world: Any) -> None:
    answer = world.get("/v0/server/version", headers={"x-request-id": "chosen\tby me"})
    assert uuid.UUID(answer.headers["x-request-id"])


@pytest.mark.parametrize(
    "content_type", [None, "application/json", "application/json; charset=utf-8", "Application/JSON"]
)
def test_json_bodies_may_leave_their_type_out(world: Any, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    body = json.dumps({"name": world.name("Typed")}).encode()
    answer = world.call("POST", "/v0/runners", by=world.admin.jwt, content=body, headers=headers)
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "nonsense"]
)
def test_another_media_type_is_400(world: Any, content_type: str) -> None:
    body = json.dumps({"name": "x"}).encode()
    answer = world.call("POST", "/v0/runners", by=world.admin.jwt, content=body, headers={"content-type": content_type})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"1",
        b'{"name":"a"} trailing',
        b'{"name":"a",}',
        b"{'name':'a'}",
        b'{"name":"\xff\xfe"}',
        b'{"name":NaN}',
        b"[" * 20_000,
        b'{"name":"\\ud800"}',
        b'{"name":"a\\u0000b"}',
    ],
    ids=lambda body: repr(body[:14]),
)
def test_a_body_that_is_no_object_of_the_route_is_400(world: Any, body: bytes) -> None:
    answer = world.call("POST", "/v0/runners", by=world.admin.jwt, content=body)
    assert answer.status_code == 400, answer.text


def test_unknown_fields_and_parameters_are_ignored(world: Any) -> None:
    name = world.name("Unknown")
    answer = world.post("/v0/runners?nothing=1&nothing=2", {"name": name, "other": {"a": [1]}}, by=world.admin.jwt)
    assert answer.status_code == 201


def test_a_body_over_the_limit_is_413_and_closes_no_one_elses_request(world: Any) -> None:
    body = b'{"name":"' + b"a" * (world.body_limit + 1) + b'"}'
    assert world.call("POST", "/v0/runners", by=world.admin.jwt, content=body).status_code == 413
    assert world.get("/v0/server/version").status_code == 200


def test_a_body_over_the_limit_without_a_length_is_413_too(world: Any) -> None:
    def pieces() -> Any:
        yield b'{"name":"'
        for _ in range(world.body_limit // 65536 + 2):
            yield b"a" * 65536

    assert world.call("POST", "/v0/runners", by=world.admin.jwt, content=pieces()).status_code == 413


def test_a_stranger_cannot_make_the_server_read_a_large_body(world: Any) -> None:
    body = b'{"name":"' + b"a" * (world.body_limit + 1) + b'"}'
    assert world.call("POST", "/v0/runners", content=body).status_code in {401, 413}


@pytest.mark.parametrize(
    "query",
    [
        "per_page=256",
        "per_page=-1",
        "per_page=1.0",
        "per_page=a",
        "per_page=",
        "per_page=1&per_page=2",
        "page=-1",
        "page=4294967296",
        "page=1&page=1",
        "sort=nothing",
        "sort=Name",
        "direction=up",
        "direction=asc&direction=desc",
        "name=%20lead",
        "name=" + "a" * 65,
        "name=",
        "name=a&name=b",
    ],
)
def test_bad_list_parameters_are_400(world: Any, query: str) -> None:
    for path in LISTS:
        if path == "/v0/users" and query.startswith("name"):
            continue  # users filter by other names
        answer = world.get(f"{path}?{query}", by=world.admin.jwt)
        assert answer.status_code == 400, (path, query, answer.text)


@pytest.mark.parametrize(
    "query", ["per_page=0", "page=0", "page=1", "page=4294967295", "per_page=255", "direction=desc", "search="]
)
def test_list_parameters_at_their_bounds_are_accepted(world: Any, query: str) -> None:
    for path in LISTS:
        answer = world.get(f"{path}?{query}", by=world.admin.jwt)
        assert answer.status_code == 200, (path, query, answer.text)
        assert isinstance(answer.json(), list)
        if query in {"per_page=0", "page=4294967295"}:
            assert answer.json() == []


def test_a_page_is_eight_rows_and_the_total_counts_all(world: Any) -> None:
    prefix = world.name("Paged")
    for number in range(10):
        world.make_runner(name=f"{prefix} {number}")
    whole = world.get(f"/v0/runners?search={prefix}", by=world.admin.jwt)
    assert (len(whole.json()), whole.headers["x-total-count"]) == (8, "10")
    zeroth = world.get(f"/v0/runners?search={prefix}&page=0&per_page=3", by=world.admin.jwt).json()
    first = world.get(f"/v0/runners?search={prefix}&page=1&per_page=3", by=world.admin.jwt).json()
    fourth = world.get(f"/v0/runners?search={prefix}&page=4&per_page=3", by=world.admin.jwt)
    assert zeroth == first
    assert [row["name"] for row in first] == [f"{prefix} {number}" for number in range(3)]
    assert [row["name"] for row in fourth.json()] == [f"{prefix} 9"]
    assert fourth.headers["x-total-count"] == "10"
    down = world.get(f"/v0/runners?search={prefix}&direction=desc&per_page=2", by=world.admin.jwt).json()
    assert [row["name"] for row in down] == [f"{prefix} 9", f"{prefix} 8"]
    newest = world.get(f"/v0/runners?search={prefix}&sort=created", by=world.admin.jwt).json()
    assert newest[0]["name"] == f"{prefix} 9"
    oldest = world.get(f"/v0/runners?search={prefix}&sort=created&direction=asc", by=world.admin.jwt).json()
    assert oldest[0]["name"] == f"{prefix} 0"


def test_search_is_case_insensitive_and_finds_slug_and_uuid(world: Any) -> None:
    name = world.name("Searched")
    made = world.make_runner(name=name)
    for text in (name.upper(), name.lower().replace(" ", "-"), made["uuid"][9:23]):
        rows = world.get("/v0/runners", params={"search": text}, by=world.admin.jwt).json()
        assert [row["uuid"] for row in rows] == [made["uuid"]], text
    assert world.get("/v0/runners", params={"name": name}, by=world.admin.jwt).json()[0]["uuid"] == made["uuid"]
    assert world.get("/v0/runners", params={"name": name[:-1]}, by=world.admin.jwt).json() == []


def test_a_browser_of_another_origin_may_ask(world: Any) -> None:
    origin = {"origin": "https://console.example.org"}
    asked = {**origin, "access-control-request-method": "PATCH", "access-control-request-headers": "authorization"}
    before = world.call("OPTIONS", "/v0/runners", headers=asked)
    assert before.status_code in {200, 204}
    assert before.headers["access-control-allow-origin"] == "*"
    assert "PATCH" in before.headers["access-control-allow-methods"]
    assert "authorization" in before.headers["access-control-allow-headers"].lower()
    after = world.get("/v0/projects", headers=origin)
    assert after.headers["access-control-allow-origin"] == "*"
    assert "x-total-count" in after.headers["access-control-expose-headers"].lower()
    assert "access-control-allow-credentials" not in after.headers
    refused = world.get("/v0/runners", headers=origin)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "*"


def test_answers_are_safe_in_a_browser(world: Any) -> None:
    for path in ("/v0/projects", "/v0/nothing", "/v0/runners"):
        headers = world.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert "server" not in headers or "uvicorn" not in headers["server"], path


def test_nothing_is_compressed(world: Any) -> None:
    answer = world.get("/v0/server/spec", headers={"accept-encoding": "gzip, deflate, br"})
    assert answer.status_code == 200
    assert "content-encoding" not in answer.headers


def test_probes_and_metrics(world: Any) -> None:
    assert world.get("/healthz").status_code == 200
    assert world.get("/readyz").status_code == 200
    metrics = world.get("/metrics", by=world.admin.jwt)
    assert metrics.status_code == 200
    assert metrics.headers["content-type"].startswith("text/plain")
    assert "# TYPE" in metrics.text


def test_the_console_address_is_public(world: Any) -> None:
    assert world.get("/v0/server/config/console").json()["url"].startswith("http")


@pytest.mark.parametrize("path", ["/v0/server/config", "/v0/server/stats"])
def test_the_servers_own_pages_are_the_administrators(world: Any, path: str) -> None:
    assert world.get(path).status_code == 401
    assert world.get(path, by=world.user.jwt).status_code == 403
    assert world.get(path, by=world.admin.jwt).status_code == 200


def test_the_configuration_shows_no_secret(world: Any) -> None:
    text = world.get("/v0/server/config", by=world.admin.jwt).text
    assert world.secrets
    assert [secret for secret in world.secrets if secret in text] == []
