"""Each kind of credential, right and wrong, at each family of routes."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

ADMIN_ROUTES = [("GET", "/v0/runners"), ("GET", "/v0/specs"), ("GET", "/v0/users"), ("GET", "/v0/server/stats")]
USER_ROUTES = [("GET", "/v0/organizations"), ("POST", "/v0/organizations"), ("POST", "/v0/auth/accept")]


def forged(token: str, **claims: Any) -> str:
    """A token with other claims and its old signature."""
    head, body, signature = token.split(".")
    decoded = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    changed = json.dumps({**decoded, **claims}).encode()
    return f"{head}.{base64.urlsafe_b64encode(changed).rstrip(b'=').decode()}.{signature}"


def unsigned(token: str) -> str:
    """A token that says it needs no signature."""
    head = base64.urlsafe_b64encode(b'{"typ":"JWT","alg":"none"}').rstrip(b"=").decode()
    return f"{head}.{token.split('.')[1]}.e30"


def wrong_credentials(world: Any) -> dict[str, str]:
    """Headers that identify no one."""
    admin = world.admin.jwt
    return {
        "not bearer": "Basic YWRtaW46YWRtaW4=",
        "empty": "Bearer ",
        "scheme only": "Bearer",
        "malformed": "Bearer no-credential",
        "short key": "Bearer bencher_user_0123",
        "long key": f"Bearer bencher_user_{'a' * 31}",
        "key with punctuation": f"Bearer bencher_user_{'a' * 29}-",
        "unknown user key": f"Bearer bencher_user_{'a' * 30}",
        "unknown project key": f"Bearer bencher_run_{'a' * 30}",
        "runner key": f"Bearer {world.runner_key}",
        "wrong signature": f"Bearer {admin[:-4]}{'AAAA' if not admin.endswith('AAAA') else 'BBBB'}",
        "forged subject": f"Bearer {forged(admin, sub='someone@example.com')}",
        "forged expiry": f"Bearer {forged(admin, exp=99999999999)}",
        "no algorithm": f"Bearer {unsigned(admin)}",
        "not JSON": "Bearer YQ.YQ.YQ",
        "overlong": "Bearer " + "a" * 7000,
    }


@pytest.mark.parametrize(("method", "path"), [*ADMIN_ROUTES, *USER_ROUTES])
def test_a_missing_credential_is_401(world: Any, method: str, path: str) -> None:
    body = {} if method == "POST" else None
    answer = world.call(method, path, json=body)
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"].lower().startswith("bearer")


@pytest.mark.parametrize(("method", "path"), [*ADMIN_ROUTES, ("GET", "/v0/organizations")])
def test_a_wrong_credential_is_401(world: Any, method: str, path: str) -> None:
    seen = {
        name: world.raw(method, path, headers={"Authorization": header}).status
        for name, header in wrong_credentials(world).items()
    }
    assert seen == dict.fromkeys(seen, 401)


def test_a_wrong_credential_is_401_even_where_anyone_may_read(world: Any) -> None:
    path = f"/v0/projects/{world.public_project['slug']}"
    assert world.get(path).status_code == 200
    seen = {}
    for name, header in wrong_credentials(world).items():
        if name == "not bearer":
            continue
        seen[name] = world.raw("GET", path, headers={"Authorization": header}).status
    # An empty credential says as much as none: either is allowed, a server error or a silent sign-in is not.
    assert {seen.pop("empty"), seen.pop("scheme only")} <= {200, 401}
    assert seen == dict.fromkeys(seen, 401)


def test_not_bearer_is_anonymous_where_anyone_may_read(world: Any) -> None:
    path = f"/v0/projects/{world.public_project['slug']}"
    assert world.get(path, headers={"authorization": "Basic YWRtaW46YWRtaW4="}).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_is_case_insensitive(world: Any, scheme: str) -> None:
    for credential in (world.admin.jwt, world.admin.key):
        answer = world.get("/v0/runners", headers={"authorization": f"{scheme} {credential}"})
        assert answer.status_code == 200


def test_a_project_key_is_no_user(world: Any) -> None:
    project = world.make_project()
    key = world.project_key(project)
    assert world.get("/v0/organizations", by=key).status_code == 401
    assert world.get("/v0/runners", by=key).status_code == 401
    assert world.get("/v0/users", by=key).status_code == 401


def test_a_project_key_opens_its_own_project_only(world: Any) -> None:
    mine, hidden = world.make_project(visibility="private"), world.make_project(visibility="private")
    key = world.project_key(mine)
    assert world.get(f"/v0/projects/{mine['slug']}", by=key).status_code == 200
    assert world.get(f"/v0/projects/{mine['uuid']}/branches", by=key).status_code == 200
    assert world.get(f"/v0/projects/{hidden['slug']}", by=key).status_code == 404
    assert world.get(f"/v0/projects/{hidden['uuid']}/branches", by=key).status_code == 404
    public = world.public_project
    assert world.get(f"/v0/projects/{public['slug']}", by=key).status_code in {200, 403}
    assert [row["uuid"] for row in world.get("/v0/projects", by=key).json()] == [mine["uuid"]]


def test_a_revoked_key_is_401(world: Any) -> None:
    project = world.make_project()
    made = world.make_project_key(project)
    by = world.owner.jwt
    assert world.get(f"/v0/projects/{project['slug']}", by=made["key"]).status_code == 200
    path = f"/v0/projects/{project['slug']}/keys/{made['uuid']}"
    assert world.call("DELETE", path, by=by).status_code == 204
    assert world.get(f"/v0/projects/{project['slug']}", by=made["key"]).status_code == 401
    assert world.call("DELETE", path, by=by).status_code == 409


def test_a_private_project_is_invisible(world: Any) -> None:
    project = world.make_project(visibility="private")
    missing = world.get("/v0/projects/there-is-none", by=world.user.jwt).json()["message"]
    for by in (None, world.user.jwt, world.user.key):
        for path in ("", "/branches", "/testbeds", "/reports", "/jobs"):
            answer = world.get(f"/v0/projects/{project['slug']}{path}", by=by)
            assert answer.status_code == 404, (by, path)
            assert answer.json()["message"].replace(project["slug"], "there-is-none") == missing
        rows = world.get("/v0/projects?per_page=255", by=by).json()
        assert project["uuid"] not in [row["uuid"] for row in rows]
    for by in (world.owner.jwt, world.owner.key, world.admin.jwt):
        assert world.get(f"/v0/projects/{project['slug']}", by=by).status_code == 200


def test_a_public_project_is_read_by_anyone_and_written_by_its_own(world: Any) -> None:
    project = world.make_project()
    path = f"/v0/projects/{project['slug']}/branches"
    assert world.get(path).status_code == 200
    body = {"name": world.slug_of(world.name("b"))}
    assert world.post(path, body).status_code == 401
    assert world.post(path, body, by=world.user.jwt).status_code == 403
    other = world.project_key(world.make_project())
    assert world.post(path, body, by=other).status_code == 403
    assert world.post(path, body, by=world.project_key(project)).status_code == 201


def test_a_locked_user_is_out(world: Any) -> None:
    person = world.make_user()
    assert world.get("/v0/organizations", by=person.jwt).status_code == 200
    locked = world.call("PATCH", f"/v0/users/{person.slug}", json={"locked": True}, by=world.admin.jwt)
    assert locked.status_code == 200, locked.text
    assert world.get("/v0/organizations", by=person.jwt).status_code == 403
    assert world.get("/v0/organizations", by=person.key).status_code == 401
    assert world.post("/v0/auth/login", {"email": person.email}).status_code == 403
    world.call("PATCH", f"/v0/users/{person.slug}", json={"locked": False}, by=world.admin.jwt)
    assert world.get("/v0/organizations", by=person.jwt).status_code == 200


def test_no_secret_reaches_the_log(world: Any) -> None:
    project = world.make_project()
    secrets = [world.admin.jwt, world.admin.key, world.project_key(project), world.runner_key]
    for secret in secrets:
        world.get("/v0/projects", by=secret)
        world.get("/v0/users", headers={"authorization": f"Basic {secret}"})
    world.get("/v0/projects", by="malformed-secret-one")
    log = world.log()
    assert log
    assert [secret for secret in [*secrets, "malformed-secret-one"] if secret in log] == []
