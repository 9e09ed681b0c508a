"""Runners and their specs as the public CLI uses them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from metalmark.testing.public_shapes import Runner, RunnerKey, Spec

BAD_NAMES = ["", " ", " lead", "trail ", "a" * 65, "é" * 33, "a\u0000b", 1, None, ["a"], {"a": 1}, True]
BAD_SLUGS = ["", "Upper", "under_score", "-lead", "trail-", "two--dashes", "a" * 65, "é", "a b", 1, ["a"]]
SPEC = {"os": "linux", "architecture": "x86_64", "cpu": 2, "memory": 4294967296, "disk": 10737418240}


def test_a_runner_is_made_seen_and_changed(world: Any) -> None:
    name = world.name("Rack")
    made = world.post("/v0/runners", {"name": name}, by=world.admin.jwt)
    assert made.status_code == 201
    key = RunnerKey.model_validate_json(made.content)
    assert uuid.UUID(key.uuid).version == 7
    seen = world.get(f"/v0/runners/{key.uuid}", by=world.admin.key)
    runner = Runner.model_validate_json(seen.content)
    assert (runner.name, runner.specs, runner.archived) == (name, [], None)
    assert runner.slug == world.slug_of(name)
    assert "key" not in seen.json()
    assert set(seen.json()) >= {"archived", "last_heartbeat"}
    changed = world.patch(f"/v0/runners/{runner.slug}", {"name": name + "!", "slug": None}, by=world.admin.jwt)
    assert changed.status_code == 200
    assert (changed.json()["name"], changed.json()["slug"]) == (name + "!", runner.slug)


def test_any_spelling_of_an_identifier_finds_it(world: Any) -> None:
    made = world.make_runner()
    plain = made["uuid"]
    for spelled in (plain.upper(), plain.replace("-", ""), "{" + plain + "}", f"urn:uuid:{plain}"):
        answer = world.get(f"/v0/runners/{spelled}", by=world.admin.jwt)
        assert answer.status_code == 200, spelled
        assert answer.json()["uuid"] == plain


@pytest.mark.parametrize("identifier", ["Upper", "under_score", "a" * 65, "-a", "%20", "%00", "%ff", "é"])
def test_what_is_no_identifier_is_400(world: Any, identifier: str) -> None:
    assert world.raw("GET", f"/v0/runners/{identifier}", by=world.admin.jwt).status == 400


@pytest.mark.parametrize("identifier", ["there-is-none", "00000000-0000-7000-8000-000000000000", "f" * 32])
def test_an_unknown_runner_or_spec_is_404(world: Any, identifier: str) -> None:
    by = world.admin.jwt
    assert world.get(f"/v0/runners/{identifier}", by=by).status_code == 404
    assert world.patch(f"/v0/runners/{identifier}", {"name": "x"}, by=by).status_code == 404
    assert world.call("POST", f"/v0/runners/{identifier}/key", by=by).status_code == 404
    assert world.get(f"/v0/runners/{identifier}/specs", by=by).status_code == 404
    assert world.get(f"/v0/specs/{identifier}", by=by).status_code == 404
    assert world.patch(f"/v0/specs/{identifier}", {"name": "x"}, by=by).status_code == 404
    assert world.call("DELETE", f"/v0/specs/{identifier}", by=by).status_code == 404
    runner = world.make_runner()["uuid"]
    assert world.post(f"/v0/runners/{runner}/specs", {"spec": identifier}, by=by).status_code == 404
    assert world.call("DELETE", f"/v0/runners/{runner}/specs/{identifier}", by=by).status_code == 404


def test_a_taken_slug_of_a_runner_is_409_and_names_may_repeat(world: Any) -> None:
    name = world.name("Twice")
    first = world.make_runner(name=name)
    again = world.post("/v0/runners", {"name": name}, by=world.admin.jwt)
    assert again.status_code == 409
    other = world.post("/v0/runners", {"name": name, "slug": world.slug_of(name) + "-b"}, by=world.admin.jwt)
    assert other.status_code == 201
    moved = world.patch(f"/v0/runners/{other.json()['uuid']}", {"slug": world.slug_of(name)}, by=world.admin.jwt)
    assert moved.status_code == 409
    kept = world.patch(f"/v0/runners/{first['uuid']}", {"slug": world.slug_of(name)}, by=world.admin.jwt)
    assert kept.status_code == 200


def test_a_runner_whose_name_has_no_slug_gets_a_random_one(world: Any) -> None:
    made = world.post("/v0/runners", {"name": "!!!"}, by=world.admin.jwt)
    assert made.status_code == 201
    assert world.get(f"/v0/runners/{made.json()['uuid']}", by=world.admin.jwt).json()["slug"]


def test_a_name_in_another_script_is_transliterated(world: Any) -> None:
    made = world.post("/v0/specs", {"name": "Größe Straße", **SPEC}, by=world.admin.jwt).json()
    assert made["slug"].startswith("grosse-strasse")
    assert made["name"] == "Größe Straße"


@pytest.mark.parametrize("route", ["/v0/runners", "/v0/specs"])
@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_a_bad_name_is_400(world: Any, route: str, name: object) -> None:
    assert world.post(route, {**SPEC, "name": name}, by=world.admin.jwt).status_code == 400
    if name is not None:
        made = world.make_runner()["uuid"] if route == "/v0/runners" else world.make_spec()["uuid"]
        assert world.patch(f"{route}/{made}", {"name": name}, by=world.admin.jwt).status_code == 400


@pytest.mark.parametrize("route", ["/v0/runners", "/v0/specs"])
@pytest.mark.parametrize("slug", BAD_SLUGS, ids=repr)
def test_a_bad_slug_is_400(world: Any, route: str, slug: object) -> None:
    assert world.post(route, {**SPEC, "name": "Good", "slug": slug}, by=world.admin.jwt).status_code == 400


def test_names_of_exactly_64_bytes_are_good(world: Any) -> None:
    for name in ("n" * 63 + world.name("")[-1], "é" * 32):
        slug = world.slug_of(world.name("long"))
        assert world.post("/v0/runners", {"name": name, "slug": slug}, by=world.admin.jwt).status_code == 201


def test_rotation_makes_another_key(world: Any) -> None:
    made = world.make_runner()
    rotated = world.call("POST", f"/v0/runners/{made['uuid']}/key", by=world.admin.jwt)
    assert rotated.status_code == 201
    assert rotated.json()["uuid"] == made["uuid"]
    assert rotated.json()["key"] != made["key"]
    assert world.handshake(made["uuid"], made["key"]) == 401
    assert world.handshake(made["uuid"], rotated.json()["key"]) == 101


def test_an_archived_runner_is_hidden_and_refused(world: Any) -> None:
    made = world.make_runner()
    path = f"/v0/runners/{made['uuid']}"
    name = world.get(path, by=world.admin.jwt).json()["name"]
    archived = world.patch(path, {"archived": True}, by=world.admin.jwt)
    assert archived.json()["archived"] is not None
    assert world.get("/v0/runners", params={"name": name}, by=world.admin.jwt).json() == []
    shown = world.get("/v0/runners", params={"name": name, "archived": "true"}, by=world.admin.jwt).json()
    assert [row["uuid"] for row in shown] == [made["uuid"]]
    assert world.call("POST", f"{path}/key", by=world.admin.jwt).status_code == 409
    assert world.handshake(made["uuid"], made["key"]) == 401
    spec = world.make_spec()
    assert world.post(f"{path}/specs", {"spec": spec["uuid"]}, by=world.admin.jwt).status_code == 201
    assert world.patch(path, {"archived": False}, by=world.admin.jwt).json()["archived"] is None
    assert world.handshake(made["uuid"], made["key"]) == 101


def test_specs_of_a_runner(world: Any) -> None:
    runner, first, second = world.make_runner(), world.make_spec(), world.make_spec()
    path = f"/v0/runners/{runner['uuid']}/specs"
    by = world.admin.jwt
    for spec in (second, first):
        added = world.post(path, {"spec": spec["slug"]}, by=by)
        assert added.status_code == 201
        assert Spec.model_validate_json(added.content).uuid == spec["uuid"]
    assert world.post(path, {"spec": first["uuid"]}, by=by).status_code == 409
    listed = world.get(f"{path}?per_page=1", by=by)
    assert [row["uuid"] for row in listed.json()] == [second["uuid"], first["uuid"]]
    assert listed.headers["x-total-count"] == "1"
    shown = world.get(f"/v0/runners/{runner['uuid']}", by=by).json()
    assert shown["specs"] == [second["uuid"], first["uuid"]]
    world.patch(f"/v0/specs/{first['uuid']}", {"archived": True}, by=by)
    assert len(world.get(path, by=by).json()) == 2
    assert world.call("DELETE", f"/v0/specs/{second['uuid']}", by=by).status_code == 409
    removed = world.call("DELETE", f"{path}/{second['slug']}", by=by)
    assert (removed.status_code, removed.content) == (204, b"")
    assert world.call("DELETE", f"{path}/{second['slug']}", by=by).status_code == 404
    assert world.call("DELETE", f"/v0/specs/{second['uuid']}", by=by).status_code == 204
    assert world.get(f"/v0/specs/{second['uuid']}", by=by).status_code == 404


def test_a_spec_is_made_and_seen(world: Any) -> None:
    name = world.name("Small VM")
    body = {"name": name, **SPEC, "sandbox": "firecracker", "network": True}
    made = world.post("/v0/specs", body, by=world.admin.jwt)
    assert made.status_code == 201
    spec = Spec.model_validate_json(made.content)
    assert (spec.name, spec.slug, spec.sandbox, spec.network) == (name, world.slug_of(name), "firecracker", True)
    assert (spec.cpu, spec.memory, spec.disk) == (2, 4294967296, 10737418240)
    assert set(made.json()) >= {"sandbox", "fallback", "archived"}
    assert world.get(f"/v0/specs/{spec.slug}", by=world.admin.jwt).json() == made.json()
    again = world.post("/v0/specs", {**body, "slug": spec.slug}, by=world.admin.jwt).json()
    assert again["slug"].startswith(f"{spec.slug}-")
    assert len(again["slug"]) == len(spec.slug) + 9
    taken = world.patch(f"/v0/specs/{again['uuid']}", {"slug": spec.slug}, by=world.admin.jwt)
    assert taken.status_code == 409


@pytest.mark.parametrize("sandbox", [None, "firecracker", "qemu", "container", "microvm"])
def test_every_sandbox_is_kept(world: Any, sandbox: str | None) -> None:
    made = world.post("/v0/specs", {"name": world.name("Box"), **SPEC, "sandbox": sandbox}, by=world.admin.jwt)
    assert (made.status_code, made.json()["sandbox"]) == (201, sandbox)


@pytest.mark.parametrize(
    ("field", "value"),
    [("os", "Linux"), ("os", ""), ("os", None), ("os", 1), ("architecture", "x86-64"), ("architecture", "arm64")]
    + [("architecture", None), ("sandbox", "Firecracker"), ("sandbox", "none-such"), ("sandbox", 1), ("network", "yes")]
    + [("network", 1), ("fallback", "true"), ("fallback", 0)]
    + [("cpu", value) for value in (0, -1, 2**31, 2.0, 1.5, "2", None, True, [2])]
    + [("memory", value) for value in (0, -1, 2**63, 1e9, "1", None, False)]
    + [("disk", value) for value in (0, -1, 2**63, 10.0, "1", None, {})],
)
def test_a_spec_out_of_bounds_is_400(world: Any, field: str, value: object) -> None:
    answer = world.post("/v0/specs", {"name": world.name("Bad"), **SPEC, field: value}, by=world.admin.jwt)
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("field", ["name", "os", "architecture", "cpu", "memory", "disk"])
def test_a_spec_without_a_required_field_is_400(world: Any, field: str) -> None:
    body = {"name": world.name("Bad"), **SPEC}
    del body[field]
    assert world.post("/v0/specs", body, by=world.admin.jwt).status_code == 400


def test_a_spec_at_its_bounds_is_accepted(world: Any) -> None:
    largest = {"cpu": 2**31 - 1, "memory": 2**63 - 1, "disk": 2**63 - 1}
    for sizes in (largest, {"cpu": 1, "memory": 1, "disk": 1}):
        made = world.post("/v0/specs", {"name": world.name("Edge"), **SPEC, **sizes}, by=world.admin.jwt)
        assert made.status_code == 201
        assert {name: made.json()[name] for name in sizes} == sizes


def test_hardware_of_a_spec_does_not_change(world: Any) -> None:
    made = world.make_spec()
    path = f"/v0/specs/{made['uuid']}"
    changed = world.patch(path, {"cpu": 64, "memory": 1, "os": "windows", "name": None}, by=world.admin.jwt)
    assert changed.status_code == 200
    assert {name: changed.json()[name] for name in SPEC} == {name: made[name] for name in SPEC}


def test_one_spec_at_most_is_the_fallback(world: Any) -> None:
    by = world.admin.jwt

    def holders() -> list[str]:
        rows = world.get("/v0/specs?archived=true&per_page=255", by=by).json()
        return [row["uuid"] for row in rows if row["fallback"] is not None]

    first = world.post("/v0/specs", {"name": world.name("F"), **SPEC, "fallback": True}, by=by).json()
    assert holders() == [first["uuid"]]
    second = world.make_spec()
    world.patch(f"/v0/specs/{second['uuid']}", {"fallback": True}, by=by)
    assert holders() == [second["uuid"]]
    both = world.patch(f"/v0/specs/{first['uuid']}", {"archived": True, "fallback": True}, by=by).json()
    assert both["fallback"] is None
    assert holders() == [second["uuid"]]
    world.patch(f"/v0/specs/{first['uuid']}", {"fallback": True}, by=by)
    assert holders() == [first["uuid"]]
    world.patch(f"/v0/specs/{first['uuid']}", {"archived": False}, by=by)
    assert holders() == [first["uuid"]]
    world.patch(f"/v0/specs/{first['uuid']}", {"archived": True}, by=by)
    assert holders() == []
    world.patch(f"/v0/specs/{first['uuid']}", {"archived": False}, by=by)
    assert holders() == []
    world.patch(f"/v0/specs/{second['uuid']}", {"fallback": True}, by=by)
    world.patch(f"/v0/specs/{second['uuid']}", {"fallback": False}, by=by)
    assert holders() == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v0/runners"),
        ("POST", "/v0/runners"),
        ("GET", "/v0/runners/x"),
        ("PATCH", "/v0/runners/x"),
        ("POST", "/v0/runners/x/key"),
        ("GET", "/v0/runners/x/specs"),
        ("POST", "/v0/runners/x/specs"),
        ("DELETE", "/v0/runners/x/specs/y"),
        ("GET", "/v0/specs"),
        ("POST", "/v0/specs"),
        ("GET", "/v0/specs/x"),
        ("PATCH", "/v0/specs/x"),
        ("DELETE", "/v0/specs/x"),
    ],
)
def test_runners_and_specs_are_the_administrators(world: Any, method: str, path: str) -> None:
    bodies = {
        "/v0/runners": {"name": "x"},
        "/v0/specs": {"name": "x", **SPEC},
        "/v0/runners/x/specs": {"spec": "y"},
        "/v0/runners/x": {},
        "/v0/specs/x": {},
    }
    body = bodies.get(path) if method in {"POST", "PATCH"} else None
    assert world.call(method, path, json=body).status_code == 401
    for by in (world.user.jwt, world.user.key):
        assert world.call(method, path, json=body, by=by).status_code == 403
    assert world.call(method, path, json=body, by=world.runner_key).status_code == 401
