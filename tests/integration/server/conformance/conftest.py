"""A real server of each engine, and who talks to it over real sockets."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from metalmark.testing.images import FakeImage
from metalmark.testing.postgresql import Cluster, find_postgresql, running_postgresql
from metalmark.testing.registry import StandInRegistry
from metalmark.testing.server_process import UNLIMITED, ServerProcess, Settings, running_server_process

SPEC = {"os": "linux", "architecture": "x86_64", "sandbox": "firecracker", "cpu": 2, "memory": 2**32, "disk": 2**33}
TIMES = {"start_time": "2026-03-01T10:00:00Z", "end_time": "2026-03-01T10:00:42Z", "results": []}
BODY_LIMIT = 256 * 1024
OWNER: Any = object()
"""Stands for the world's owner where none means nobody."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """A user and its credentials."""

    uuid: str
    slug: str
    email: str
    jwt: str
    key: str


@dataclass(frozen=True, kw_only=True)
class RawAnswer:
    """An answer to a request whose path no client library has tidied up."""

    status: int
    headers: dict[str, str]
    body: bytes


def checked(answer: httpx.Response) -> httpx.Response:
    """Return an answer that keeps to what all answers have in common."""
    where = f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:500]}"
    assert answer.status_code != 500, where
    assert answer.status_code != 422, where
    assert uuid.UUID(answer.headers["x-request-id"]), where
    assert "content-encoding" not in answer.headers, where
    if answer.status_code >= 400:
        assert answer.headers["content-type"].split(";")[0] == "application/json", where
        body = answer.json()
        assert set(body) <= {"request_id", "message", "error_code"}, where
        assert body["request_id"] == answer.headers["x-request-id"], where
        assert isinstance(body["message"], str), where
        assert body["message"], where
    elif answer.request.url.path.startswith("/v0") and answer.request.method != "OPTIONS":
        total = answer.headers["x-total-count"]
        if answer.status_code == 204:
            assert (total, answer.content) == ("0", b""), where
        elif not isinstance(answer.json(), list):
            assert total == "1", where
    return answer


@dataclass(kw_only=True)
class World:
    """A server, the people it knows, and the requests they make."""

    url: str
    log: Callable[[], str]
    registry: str
    digest: str
    body_limit: int = BODY_LIMIT
    admin: Person
    secrets: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self._client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    @cached_property
    def owner(self) -> Person:
        """A user who owns what tests make."""
        return self.make_user()

    @cached_property
    def user(self) -> Person:
        """A user who owns nothing."""
        return self.make_user()

    @cached_property
    def organization(self) -> dict[str, Any]:
        return self.make_organization()

    @cached_property
    def public_project(self) -> dict[str, Any]:
        return self.make_project()

    @cached_property
    def runner_key(self) -> str:
        key: str = self.make_runner()["key"]
        return key

    def close(self) -> None:
        self._client.close()

    @property
    def image(self) -> str:
        """An image reference that the server may run."""
        return f"{self.registry}/app:latest"

    @property
    def own_image(self) -> str:
        """A reference into the server's own registry, which is all that public runners are given; nobody pulls it."""
        return f"localhost:{urlsplit(self.url).port}/app@{self.digest}"

    def name(self, prefix: str) -> str:
        """A name that no other test of this server uses."""
        return f"{prefix} {next(self._numbers)}z"

    @staticmethod
    def slug_of(name: str) -> str:
        return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

    def call(self, method: str, path: str, *, by: str | None = None, **request: Any) -> httpx.Response:
        headers = dict(request.pop("headers", None) or {})
        if by is not None:
            headers["authorization"] = f"Bearer {by}"
        if "json" in request and request["json"] is None:
            del request["json"]
        return checked(self._client.request(method, path, headers=headers, **request))

    def get(self, path: str, **request: Any) -> httpx.Response:
        return self.call("GET", path, **request)

    def post(self, path: str, body: object, **request: Any) -> httpx.Response:
        return self.call("POST", path, content=json.dumps(body), **_json(request))

    def patch(self, path: str, body: object, **request: Any) -> httpx.Response:
        return self.call("PATCH", path, content=json.dumps(body), **_json(request))

    def run(self, *, by: str | None = OWNER, **fields: Any) -> httpx.Response:
        return self.post("/v0/run", {**TIMES, **fields}, by=self.owner.key if by is OWNER else by)

    def raw(self, method: str, path: str, *, by: str | None = None, headers: Mapping[str, str] = {}) -> RawAnswer:
        """Send a request line as it is."""
        place = urlsplit(self.url)
        lines = [f"{method} {path} HTTP/1.1", f"Host: {place.netloc}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if by is not None:
            lines.append(f"Authorization: Bearer {by}")
        with socket.create_connection((place.hostname or "", place.port or 0), timeout=20) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            received = b""
            while piece := _received(connection, received):
                received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        seen = dict(line.lower().split(": ", 1) for line in rest)
        return RawAnswer(status=int(first.split()[1]), headers=seen, body=body)

    def handshake(self, runner: str, key: str | None) -> int:
        """The status that a runner's channel is answered with."""
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        return self.raw("GET", f"/v0/runners/{runner}/channel", by=key, headers=upgrade).status

    def until(self, holds: Callable[[], bool], *, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, "it did not come about in time"
            time.sleep(0.05)

    def logged_token(self, kind: str, email: str) -> str:
        """The newest token that the log has for a mail to an address."""
        found: list[str] = []
        self.until(lambda: bool(found.extend(_tokens(self.log(), kind, email)) or found), seconds=10)
        return found[-1]

    def confirmation_token(self, email: str) -> str:
        return self.logged_token("Confirmation Token", email)

    def invite_token(self, email: str) -> str:
        return self.logged_token("Invite Token", email)

    def make_user(self) -> Person:
        name = self.name("Person").replace("z", "")
        email = f"{self.slug_of(name)}-{uuid.uuid4().hex[:8]}@example.com"
        signed = self.post("/v0/auth/signup", {"name": name, "email": email, "i_agree": True})
        assert signed.status_code == 202, signed.text
        session = self.post("/v0/auth/confirm", {"token": self.confirmation_token(email)}).json()
        user, jwt = session["user"], session["token"]
        made = self.post(f"/v0/users/{user['slug']}/keys", {"name": "first"}, by=jwt)
        assert made.status_code == 201, made.text
        return Person(uuid=user["uuid"], slug=user["slug"], email=email, jwt=jwt, key=made.json()["key"])

    def make_organization(self) -> dict[str, Any]:
        return self._made("/v0/organizations", {"name": self.name("Org")}, by=self.owner.jwt)

    def make_project(self, *, visibility: str = "public", organization: str | None = None) -> dict[str, Any]:
        path = f"/v0/organizations/{organization or self.organization['slug']}/projects"
        return self._made(path, {"name": self.name("Project"), "visibility": visibility}, by=self.owner.jwt)

    def make_project_key(self, project: Mapping[str, Any]) -> dict[str, Any]:
        return self._made(f"/v0/projects/{project['slug']}/keys", {"name": "ci"}, by=self.owner.jwt)

    def project_key(self, project: Mapping[str, Any]) -> str:
        key: str = self.make_project_key(project)["key"]
        return key

    def make_runner(self, *, name: str | None = None) -> dict[str, Any]:
        return self._made("/v0/runners", {"name": name or self.name("Runner")}, by=self.admin.jwt)

    def make_spec(self, **fields: Any) -> dict[str, Any]:
        return self._made("/v0/specs", {"name": self.name("Spec"), **SPEC, **fields}, by=self.admin.jwt)

    def clear_fallback(self) -> None:
        for row in self.get("/v0/specs?archived=true&per_page=255", by=self.admin.jwt).json():
            if row["fallback"] is not None:
                self.patch(f"/v0/specs/{row['uuid']}", {"fallback": False}, by=self.admin.jwt)

    def _made(self, path: str, body: object, *, by: str) -> dict[str, Any]:
        answer = self.post(path, body, by=by)
        assert answer.status_code == 201, (path, answer.text)
        made: dict[str, Any] = answer.json()
        return made


def _json(request: dict[str, Any]) -> dict[str, Any]:
    headers = {"content-type": "application/json", **(request.pop("headers", None) or {})}
    return {**request, "headers": headers}


def _received(connection: socket.socket, before: bytes) -> bytes:
    # A connection that was upgraded stays open: its head is all that is wanted.
    if before.startswith(b"HTTP/1.1 101") and b"\r\n\r\n" in before:
        return b""
    return connection.recv(65536)


def _tokens(log: str, kind: str, email: str) -> list[str]:
    # A mail in the log names its address and, after it, its token.
    pattern = re.compile(rf"{re.escape(email)}.*?{kind}: ([\w-]+\.[\w-]+\.[\w-]+)", re.DOTALL)
    return pattern.findall(log)


@pytest.fixture(scope="session")
def job_registry() -> Iterator[tuple[str, str]]:
    """A registry that servers may take images of, and the digest of ``app:latest`` in it."""
    with StandInRegistry() as registry:
        yield registry.name, str(registry.push(FakeImage()))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server for the session."""
    if find_postgresql() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with running_postgresql() as cluster:
        yield cluster


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, job_registry: tuple[str, str]
) -> Iterator[World]:
    """A server of its own process on each engine, with an administrator and two users."""
    folder = tmp_path_factory.mktemp(f"server-{request.param}")
    registry, digest = job_registry
    with contextlib.ExitStack() as stack:
        database = f"sqlite:///{folder}/server.db"
        if request.param == "postgresql":
            cluster: Cluster = request.getfixturevalue("cluster")
            database = stack.enter_context(cluster.database())
        settings: Settings = {
            "database": database,
            "storage": str(folder / "storage"),
            "server": {"request_body_max_bytes": BODY_LIMIT},
            "auth": {"signup": "open"},
            "registry": {"allowed": [registry]},
            "limits": UNLIMITED,
        }
        server = stack.enter_context(running_server_process(folder, settings))
        key = server.admin_key()
        world = World(
            url=server.url,
            log=server.log,
            registry=registry,
            digest=digest,
            admin=administrator(server, key),
            secrets=[key],
        )
        yield world
        world.close()


def administrator(server: ServerProcess, key: str) -> Person:
    """The first administrator, signed in."""
    with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {key}"}, trust_env=False) as client:
        user = next(row for row in client.get("/v0/users").json() if row["admin"])
        assert client.post("/v0/auth/login", json={"email": user["email"]}).status_code == 202
        deadline = time.monotonic() + 30
        while not (tokens := _tokens(server.log(), "Confirmation Token", user["email"])):
            assert time.monotonic() < deadline, server.log()[-4000:]
            time.sleep(0.05)
        session = client.post("/v0/auth/confirm", json={"token": tokens[-1]}).json()
    return Person(uuid=user["uuid"], slug=user["slug"], email=user["email"], jwt=session["token"], key=key)
