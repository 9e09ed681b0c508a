"""Who may do what with a repository, and the tokens of the registry's token service: real sockets, both engines."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from starlette.requests import HTTPConnection
from tests.integration.server.engines import ENGINES, server_of
from tests.integration.server.registry_world import RegistryWorld, basic, bearer, make_world

from metalmark.model import Forbidden, MetalmarkError, NotFound, ResourceId, Unauthenticated, parse_resource_id
from metalmark.oci.registry_auth import parse_challenges
from metalmark.server import ServerContext
from metalmark.server.registry_access import RepositoryRef, allowed, may_pull
from metalmark.server.registry_challenge import registry_challenge
from metalmark.server.registry_scope import Action
from metalmark.store import ProjectRecord, find_organization, find_project
from metalmark.testing.running_server import RunningServer, running_server

TOKEN = "/v0/auth/oci/token"
numbers = itertools.count(1)


@pytest.fixture(scope="module", params=ENGINES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that is closed to strangers."""
    with server_of(request, tmp_path_factory) as running:
        yield running


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that takes pushes of strangers."""
    with running_server(tmp_path_factory.mktemp("open"), settings={"auth": {"anonymous": True}}) as running:
        yield running


@pytest.fixture
def world(server: RunningServer) -> RegistryWorld:
    return make_world(server)


def connection_of(headers: Mapping[str, str]) -> HTTPConnection:
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    state = {"client_address": "192.0.2.7", "request_id": "00000000-0000-4000-8000-000000000000"}
    return HTTPConnection({"type": "http", "scheme": "http", "headers": encoded, "state": state})


def ask(server: RunningServer, headers: Mapping[str, str], name: str, action: Action) -> RepositoryRef:
    return server.call(lambda context: allowed(connection_of(headers), context, name, action))


def outcome(server: RunningServer, headers: Mapping[str, str], name: str, action: Action) -> str:
    try:
        ask(server, headers, name, action)
    except (Unauthenticated, Forbidden, NotFound) as error:
        return {Unauthenticated: "401", Forbidden: "403", NotFound: "404"}[type(error)]
    return "yes"


def token(server: RunningServer, headers: Mapping[str, str], *scopes: str) -> str:
    with server.client(None) as client:
        answer = client.get(TOKEN, params=[("scope", scope) for scope in scopes], headers=headers)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["token"]
    return text


def project_named(server: RunningServer, identifier: ResourceId) -> ProjectRecord | None:
    async def read(context: ServerContext) -> ProjectRecord | None:
        async with context.store.read() as connection:
            return await find_project(connection, identifier)

    return server.call(read)


WHO_MAY = {
    # holder: (pull, push, delete) of the public project, then of the private one
    "developer": ("yes yes yes", "yes yes yes"),
    "viewer": ("yes 403 403", "yes 404 404"),
    "stranger": ("yes 403 403", "404 404 404"),
    "project": ("yes 403 403", "yes yes yes"),
    "nobody": ("yes 401 401", "401 401 401"),
    "expired": ("401 401 401", "401 401 401"),
}


@pytest.mark.parametrize("holder", list(WHO_MAY))
@pytest.mark.parametrize("way", ["basic", "bearer", "token"])
def test_who_may_do_what(server: RunningServer, world: RegistryWorld, holder: str, way: str) -> None:
    if holder == "nobody":
        headers: dict[str, str] = {}
    else:
        headers = basic(world.keys[holder]) if way == "basic" else bearer(world.keys[holder])
    if way == "token" and holder != "expired":
        scopes = [f"repository:{name}:*" for name in (world.public, world.private, f"{world.private}/app")]
        headers = bearer(token(server, headers, *scopes))
    for name, expected in zip((world.public, world.private), WHO_MAY[holder], strict=True):
        found = [outcome(server, headers, name, action) for action in Action]
        assert found == expected.split(), name
    inner = [outcome(server, headers, f"{world.private}/app", action) for action in Action]
    assert inner == WHO_MAY[holder][1].split()


def test_a_repository_is_its_projects_by_slug_or_by_identifier(server: RunningServer, world: RegistryWorld) -> None:
    headers = basic(world.keys["project"])
    for name in (world.private, str(world.private_id)):
        ref = ask(server, headers, f"{name}/a/b", Action.PUSH)
        assert (ref.project_id, ref.project, ref.name, ref.inner) == (
            world.private_id,
            world.private,
            f"{name}/a/b",
            "a/b",
        )
        assert not ref.whole_project


def test_a_token_opens_no_more_than_was_asked_for(server: RunningServer, world: RegistryWorld) -> None:
    headers = basic(world.keys["developer"])
    narrow = bearer(token(server, headers, f"repository:{world.private}:pull"))
    asked = connection_of(narrow)
    assert outcome(server, narrow, world.private, Action.PULL) == "yes"
    assert outcome(server, narrow, world.private, Action.PUSH) == "403"
    assert outcome(server, narrow, world.public, Action.PULL) == "403"
    with pytest.raises(Forbidden):
        server.call(lambda context: allowed(asked, context, world.private, Action.PUSH))
    (challenge,) = parse_challenges(registry_challenge(asked, server.context.config))
    assert challenge.parameters["error"] == "insufficient_scope"
    assert challenge.parameters["scope"] == f"repository:{world.private}:pull,push"


def test_one_token_is_for_several_repositories(server: RunningServer, world: RegistryWorld) -> None:
    scopes = f"repository:{world.public}:pull repository:{world.private}:pull,push"
    headers = bearer(token(server, basic(world.keys["developer"]), scopes))
    assert outcome(server, headers, world.private, Action.PUSH) == "yes"
    assert outcome(server, headers, world.public, Action.PULL) == "yes"
    found = server.call(lambda context: may_pull(connection_of(headers), context, world.public))
    assert found is not None
    assert server.call(lambda context: may_pull(connection_of(headers), context, f"{world.public}/other")) is None


def test_a_token_ends_with_its_key(server: RunningServer, world: RegistryWorld) -> None:
    headers = bearer(token(server, basic(world.keys["project"]), f"repository:{world.private}:pull"))
    assert outcome(server, headers, world.private, Action.PULL) == "yes"
    with server.client() as client:
        keys = client.get(f"/v0/projects/{world.private}/keys").json()
        assert client.delete(f"/v0/projects/{world.private}/keys/{keys[0]['uuid']}").status_code == 204
    assert outcome(server, headers, world.private, Action.PULL) == "401"


@pytest.mark.parametrize("credential", ["Bearer x", "Bearer a.b.c", "Basic eDp5", "Basic ???", "Bearer"])
def test_what_is_no_credential_opens_nothing_not_even_what_is_public(
    server: RunningServer, world: RegistryWorld, credential: str
) -> None:
    assert outcome(server, {"Authorization": credential}, world.public, Action.PULL) == "401"


def test_a_sign_ins_token_is_good_and_a_registrys_token_is_good_for_nothing_else(
    server: RunningServer, world: RegistryWorld
) -> None:
    text = token(server, basic(world.keys["developer"]))
    with server.client(text) as client:
        assert client.get(f"/v0/projects/{world.private}").status_code == 401
        # And it makes no further tokens, which would never end.
        assert client.get(TOKEN).status_code == 401


def test_the_first_push_makes_a_project_in_the_users_own_organization(
    server: RunningServer, world: RegistryWorld
) -> None:
    name = f"fresh-{next(numbers)}-{server.context.config.url[-5:-1]}"
    headers = basic(world.keys["stranger"])
    assert outcome(server, headers, name, Action.PULL) == "404"
    ref = ask(server, headers, f"{name}/app", Action.PUSH)
    made = project_named(server, parse_resource_id(name))
    assert made is not None
    assert (ref.project_id, ref.project, made.claimed is not None) == (made.id, name, True)
    assert ask(server, headers, name, Action.PUSH).project_id == made.id
    assert outcome(server, basic(world.keys["viewer"]), name, Action.PUSH) == "403"


def test_no_push_makes_a_project_of_an_identifier_or_with_a_projects_key(
    server: RunningServer, world: RegistryWorld
) -> None:
    unknown = "01970000-0000-7000-8000-00000000dead"
    assert outcome(server, basic(world.keys["developer"]), unknown, Action.PUSH) == "404"
    assert outcome(server, basic(world.keys["project"]), "never-made", Action.PUSH) == "404"
    assert outcome(server, {}, "never-made", Action.PUSH) == "401"
    assert project_named(server, parse_resource_id("never-made")) is None


def test_a_users_push_claims_what_was_nobodys(server: RunningServer, world: RegistryWorld) -> None:
    assert outcome(server, {}, world.unclaimed, Action.PUSH) == "401"
    assert outcome(server, basic(world.keys["stranger"]), world.unclaimed, Action.PUSH) == "yes"
    found = project_named(server, parse_resource_id(world.unclaimed))
    assert found is not None
    assert found.claimed is not None
    assert outcome(server, basic(world.keys["viewer"]), world.unclaimed, Action.PUSH) == "403"


def test_strangers_push_where_the_operator_says_so(open_server: RunningServer) -> None:
    world = make_world(open_server)
    assert outcome(open_server, {}, world.unclaimed, Action.PUSH) == "yes"
    assert outcome(open_server, {}, world.public, Action.PUSH) == "401"
    assert outcome(open_server, {}, world.private, Action.PUSH) == "401"
    assert outcome(open_server, {}, world.unclaimed, Action.DELETE) == "401"
    headers = bearer(token(open_server, {}, "repository:brand-new:pull,push"))
    ref = ask(open_server, headers, "brand-new", Action.PUSH)

    async def members(context: ServerContext) -> bool:
        async with context.store.read() as connection:
            organization = await find_organization(connection, parse_resource_id("brand-new"))
            return organization is not None and organization.claimed is None

    assert open_server.call(members)
    assert ask(open_server, {}, "brand-new", Action.PULL).project_id == ref.project_id


def test_where_clients_look_for_a_registry(server: RunningServer, world: RegistryWorld) -> None:
    with server.client(None) as client:
        refused = client.get("/v2/")
        assert refused.status_code == 401
        (challenge,) = parse_challenges(refused.headers["www-authenticate"])
        assert challenge.parameters == {"realm": f"{server.url}{TOKEN}", "service": "127.0.0.1"}
        for headers in (basic(world.keys["project"]), bearer(world.keys["viewer"]), bearer(token(server, {}))):
            assert client.get("/v2/", headers=headers).json() == {}


def form(client: httpx.Client, **fields: str) -> httpx.Response:
    return client.post(TOKEN, data=fields)


def test_the_token_service_speaks_oauth_too(server: RunningServer, world: RegistryWorld) -> None:
    scope = f"repository:{world.private}:pull repository:{world.public}:pull"
    with server.client(None) as client:
        answer = form(client, grant_type="password", username="x", password=world.keys["viewer"], scope=scope)
        body: dict[str, Any] = answer.json()
        assert (answer.status_code, body["expires_in"], body["scope"]) == (200, 300, scope)
        assert outcome(server, bearer(body["access_token"]), world.private, Action.PULL) == "yes"
        assert form(client, grant_type="refresh_token", refresh_token="x").json()["error"] == "unsupported_grant_type"
        assert form(client, password="x").json()["error"] == "invalid_request"
        assert form(client, grant_type="password").json()["error"] == "invalid_request"
        wrong = form(client, grant_type="password", password=world.keys["viewer"], scope="nothing")
        assert (wrong.status_code, wrong.json()["error"]) == (400, "invalid_scope")
        bad = form(client, grant_type="password", password=world.keys["expired"])
        assert (bad.status_code, "Bearer realm" in bad.headers["www-authenticate"]) == (401, True)


def test_bad_credentials_at_the_token_service_are_challenged_again(server: RunningServer) -> None:
    with server.client(None) as client:
        answer = client.get(TOKEN, headers=basic("bencher_user_" + "0" * 30))
        assert answer.status_code == 401
        assert parse_challenges(answer.headers["www-authenticate"])[0].parameters["realm"] == f"{server.url}{TOKEN}"
        assert client.get(TOKEN, params={"scope": "x"}).status_code == 400


def test_attempts_with_bad_keys_are_counted(tmp_path_factory: pytest.TempPathFactory) -> None:
    limits = {"limits": {"sign_in_attempts": 3, "registry_requests": 5}}
    with running_server(tmp_path_factory.mktemp("limited"), settings=limits) as limited, limited.client(None) as client:
        bad = [client.get("/v2/", headers=basic("wrong")).status_code for _ in range(5)]
        assert bad == [401, 401, 401, 429, 429]
        good = [client.get("/v2/", headers=basic(limited.admin_key)).status_code for _ in range(7)]
        assert good == [200] * 5 + [429] * 2


def test_every_refusal_is_of_the_error_tree(server: RunningServer, world: RegistryWorld) -> None:
    for name in ("", "UPPER", "a/../b", f"{world.private}/", "a" * 300):
        with pytest.raises(MetalmarkError):
            ask(server, basic(world.keys["developer"]), name, Action.PULL)
