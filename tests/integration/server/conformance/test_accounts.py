"""Sign-up, users, user keys, retired tokens, organizations and members."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import pytest

from metalmark.testing.public_shapes import (
    AuthUser,
    KeyOfUser,
    Member,
    NewKeyOfUser,
    Organization,
    User,
)


def test_sign_up_confirm_and_sign_in(world: Any) -> None:
    email = f"{world.slug_of(world.name('ada'))}@example.com"
    body = {"name": "Ada Lovelace", "email": email.upper(), "i_agree": True}
    asked = world.post("/v0/auth/signup", body)
    assert (asked.status_code, asked.json()) == (202, {"email": email})
    assert world.post("/v0/auth/signup", body).status_code == 409
    token = world.confirmation_token(email)
    confirmed = world.post("/v0/auth/confirm", {"token": token})
    assert confirmed.status_code == 200
    session = AuthUser.model_validate_json(confirmed.content)
    assert (session.user.email, session.user.name, session.user.admin) == (email, "Ada Lovelace", False)
    assert session.user.slug.startswith("ada-lovelace")
    lives = datetime.fromisoformat(session.expiration) - datetime.fromisoformat(session.creation)
    assert lives.days == 30
    assert world.get(f"/v0/users/{session.user.uuid}", by=session.token).status_code == 200
    assert world.get(f"/v0/organizations/{session.user.uuid}", by=session.token).json()["slug"] == session.user.slug
    again = world.post("/v0/auth/login", {"email": email})
    assert (again.status_code, again.json()) == (202, {"email": email})
    second = world.post("/v0/auth/confirm", {"token": world.confirmation_token(email)})
    assert second.status_code == 200


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"i_agree": False}, 403),
        ({"i_agree": None}, 400),
        ({"i_agree": "true"}, 400),
        ({"email": "no address"}, 400),
        ({"email": "@example.com"}, 400),
        ({"email": "a@b@example.com"}, 400),
        ({"email": "a" * 300 + "@example.com"}, 400),
        ({"email": None}, 400),
        ({"name": ""}, 400),
        ({"name": "Robert'); DROP TABLE users;--"}, 400),
        ({"name": "é"}, 400),
        ({"name": "a" * 65}, 400),
        ({"name": " lead"}, 400),
        ({"slug": "Bad Slug"}, 400),
        ({"invite": "no-token"}, 400),
        ({"claim": "no-uuid"}, 400),
    ],
    ids=repr,
)
def test_bad_sign_ups(world: Any, change: dict[str, object], status: int) -> None:
    body = {"name": "Ada", "email": f"{uuid.uuid4().hex}@example.com", "i_agree": True, **change}
    assert world.post("/v0/auth/signup", body).status_code == status


def test_sign_in_of_a_stranger_is_404(world: Any) -> None:
    assert world.post("/v0/auth/login", {"email": f"{uuid.uuid4().hex}@example.com"}).status_code == 404
    assert world.post("/v0/auth/login", {"email": "nothing"}).status_code == 400


def test_only_a_confirmation_token_confirms(world: Any) -> None:
    assert world.post("/v0/auth/confirm", {"token": world.user.jwt}).status_code == 401
    assert world.post("/v0/auth/confirm", {"token": "a.b.c"}).status_code == 401
    assert world.post("/v0/auth/confirm", {"token": "nothing"}).status_code == 400
    email = world.user.email
    world.post("/v0/auth/login", {"email": email})
    token = world.confirmation_token(email)
    assert world.get("/v0/organizations", by=token).status_code == 401
    assert world.post("/v0/auth/accept", {"invite": token}, by=world.user.jwt).status_code == 401


def test_users_are_listed_to_administrators_only(world: Any) -> None:
    assert world.get("/v0/users", by=world.user.jwt).status_code == 403
    rows = world.get("/v0/users?per_page=255", by=world.admin.jwt).json()
    assert {world.user.uuid, world.admin.uuid} <= {row["uuid"] for row in rows}


def test_a_user_sees_and_changes_itself_only(world: Any) -> None:
    person, other = world.make_user(), world.user
    path = f"/v0/users/{person.slug}"
    assert User.model_validate_json(world.get(path, by=person.jwt).content).email == person.email
    assert world.get(path, by=other.jwt).status_code == 403
    assert world.patch(path, {"name": "Other"}, by=other.jwt).status_code == 403
    assert world.patch(path, {"name": "Grace Hopper"}, by=person.key).json()["name"] == "Grace Hopper"
    for change in ({"admin": True}, {"locked": True}, {"locked": False}):
        assert world.patch(path, change, by=person.jwt).status_code == 403
    assert world.get(path, by=person.jwt).json()["admin"] is False
    assert world.patch(path, {"email": other.email}, by=person.jwt).status_code == 409
    assert world.patch(path, {"slug": other.slug}, by=person.jwt).status_code == 409
    for bad in ({"email": "x"}, {"name": "<b>"}, {"slug": "A"}, {"admin": "yes"}, {"name": 1}):
        assert world.patch(path, bad, by=world.admin.jwt).status_code == 400, bad
    assert world.get("/v0/users/there-is-none", by=world.admin.jwt).status_code == 404


def test_user_keys(world: Any) -> None:
    person = world.make_user()
    path = f"/v0/users/{person.slug}/keys"
    made = world.post(path, {"name": "ci", "ttl": 86400}, by=person.jwt)
    assert made.status_code == 201
    key = NewKeyOfUser.model_validate_json(made.content)
    lives = datetime.fromisoformat(key.expiration) - datetime.fromisoformat(key.creation)
    assert round(lives.total_seconds()) == 86400
    seen = world.get(f"{path}/{key.uuid}", by=person.jwt)
    assert "key" not in seen.json()
    assert "revoked" not in seen.json()
    assert KeyOfUser.model_validate_json(seen.content).uuid == key.uuid
    assert world.post(path, {"name": "more"}, by=key.key).status_code == 403
    assert [row["uuid"] for row in world.get(path, by=key.key).json()] == [key.uuid]
    assert len(world.get(path, by=person.jwt).json()) >= 1
    other = world.post(path, {"name": "other"}, by=person.jwt).json()
    for method, body in (("GET", None), ("PATCH", {"name": "x"}), ("DELETE", None)):
        assert world.call(method, f"{path}/{other['uuid']}", json=body, by=key.key).status_code == 403
    assert world.patch(f"{path}/{key.uuid}", {"name": "renamed"}, by=key.key).json()["name"] == "renamed"
    assert world.call("DELETE", f"{path}/{other['uuid']}", by=person.jwt).status_code == 204
    assert world.call("DELETE", f"{path}/{other['uuid']}", by=person.jwt).status_code == 409
    assert world.get("/v0/organizations", by=other["key"]).status_code == 401
    revoked = world.get(f"{path}?revoked=true", by=person.jwt).json()
    assert [row["uuid"] for row in revoked] == [other["uuid"]]
    assert revoked[0]["revoked"] is not None
    assert other["uuid"] not in [row["uuid"] for row in world.get(path, by=person.jwt).json()]
    assert world.get(path, by=world.user.jwt).status_code == 403
    assert world.get(path, by=world.admin.jwt).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x", "ttl": 0},
        {"name": "x", "ttl": -1},
        {"name": "x", "ttl": 2**32},
        {"name": "x", "ttl": 1.0},
        {"name": "x", "ttl": "1"},
        {"name": " x"},
        {"name": 1},
    ],
    ids=repr,
)
def test_bad_user_keys_are_400(world: Any, body: dict[str, object]) -> None:
    assert world.post(f"/v0/users/{world.user.slug}/keys", body, by=world.user.jwt).status_code == 400


def test_a_key_expires(world: Any) -> None:
    made = world.post(f"/v0/users/{world.user.slug}/keys", {"name": "brief", "ttl": 1}, by=world.user.jwt).json()
    world.until(lambda: world.get("/v0/organizations", by=made["key"]).status_code == 401, seconds=10)


def test_tokens_are_retired(world: Any) -> None:
    path = f"/v0/users/{world.user.slug}/tokens"
    assert world.post(path, {"name": "x"}).status_code == 401
    assert world.post(path, {"name": "x"}, by=world.user.jwt).status_code == 403
    assert world.get(path, by=world.user.jwt).json() == []
    assert world.get(f"{path}/{uuid.uuid4()}", by=world.user.jwt).status_code == 404


def test_organizations(world: Any) -> None:
    name = world.name("Acme")
    by = world.owner.jwt
    made = world.post("/v0/organizations", {"name": name}, by=by)
    assert made.status_code == 201
    organization = Organization.model_validate_json(made.content)
    assert organization.slug == world.slug_of(name)
    assert organization.claimed is not None
    path = f"/v0/organizations/{organization.slug}"
    for stranger in (world.user.jwt, world.user.key):
        assert world.get(path, by=stranger).status_code == 404
        assert world.patch(path, {"name": "x"}, by=stranger).status_code == 404
        assert world.call("DELETE", path, by=stranger).status_code == 404
    assert world.get(path, by=world.admin.jwt).status_code == 200
    assert organization.uuid in [row["uuid"] for row in world.get("/v0/organizations?per_page=255", by=by).json()]
    listed = world.get("/v0/organizations?per_page=255", by=world.user.jwt).json()
    assert organization.uuid not in [row["uuid"] for row in listed]
    assert world.patch(path, {"name": name + "!"}, by=by).json()["name"] == name + "!"
    assert world.post(f"{path}/claim", {}, by=world.user.jwt).status_code in {401, 404}
    for permission in (
        "view",
        "create",
        "edit",
        "delete",
        "manage",
        "view_role",
        "create_role",
        "edit_role",
        "delete_role",
    ):
        assert world.get(f"{path}/allowed/{permission}", by=by).json() == {"allowed": True}
    assert world.get(f"{path}/allowed/fly", by=by).status_code == 400
    project = world.make_project(organization=organization.slug)
    assert world.call("DELETE", path, by=by).status_code == 204
    assert world.get(path, by=by).status_code == 404
    assert world.get(f"/v0/projects/{project['slug']}", by=by).status_code == 404


def test_members(world: Any) -> None:
    organization = world.make_organization()
    by, path = world.owner.jwt, f"/v0/organizations/{organization['slug']}"
    invited = world.make_user()
    asked = world.post(f"{path}/members", {"email": invited.email, "role": "leader"}, by=by)
    assert (asked.status_code, asked.json()) == (202, {"email": invited.email})
    assert world.get(path, by=invited.jwt).status_code == 404
    token = world.invite_token(invited.email)
    accepted = world.post("/v0/auth/accept", {"invite": token}, by=invited.jwt)
    assert (accepted.status_code, accepted.json()) == (202, {"email": invited.email})
    assert world.post("/v0/auth/accept", {"invite": token}, by=world.user.jwt).status_code in {401, 403}
    rows = world.get(f"{path}/members", by=invited.jwt).json()
    assert {row["uuid"] for row in rows} == {world.owner.uuid, invited.uuid}
    member = Member.model_validate(world.get(f"{path}/members/{invited.slug}", by=by).json())
    assert (member.email, member.role) == (invited.email, "leader")
    assert world.call("DELETE", f"{path}/members/{invited.slug}", by=by).status_code == 204
    assert world.get(path, by=invited.jwt).status_code == 404
    assert world.get(f"{path}/members/{invited.slug}", by=by).status_code == 404
    for bad in ({}, {"email": "x", "role": "leader"}, {"email": "a@example.com", "role": "king"}):
        assert world.post(f"{path}/members", bad, by=by).status_code == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v0/organizations/{organization}/plan"),
        ("POST", "/v0/organizations/{organization}/plan"),
        ("GET", "/v0/organizations/{organization}/sso"),
        ("GET", "/v0/organizations/{organization}/usage"),
        ("POST", "/v0/checkout"),
        ("GET", "/v0/auth/github"),
        ("POST", "/v0/auth/google"),
    ],
)
def test_what_is_sold_elsewhere_is_404(world: Any, method: str, path: str) -> None:
    path = path.format(organization=world.organization["slug"])
    for by in (None, world.owner.jwt, world.admin.jwt):
        assert world.call(method, path, json={} if method == "POST" else None, by=by).status_code == 404
