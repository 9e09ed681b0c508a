"""A registry on loopback that behaves, or misbehaves, as a test tells it to."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit

from metalmark.model import Digest
from metalmark.testing.images import OCI_INDEX, OCI_MANIFEST, FakeImage

_RANGE = re.compile(r"bytes=(\d+)-")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request that arrived."""

    method: str
    path: str
    authorization: str
    range: str
    body: str = ""


@dataclass(kw_only=True)
class Behaviour:
    """What the registry does beside serving."""

    bearer: bool = False
    """Want a bearer token from ``/token``."""
    users: dict[str, str] = field(default_factory=dict)
    """Want basic credentials (at ``/token`` with ``bearer``); empty lets anybody in."""
    refresh_token: str = ""
    """Identity token that ``/token`` takes by POST."""
    cut_after: int = 0
    """Bytes of a blob after which the connection is cut; each request gets that much further."""
    stall_after: int = -1
    """Bytes of a blob after which nothing comes any more."""
    corrupt: bool = False
    """Flip a bit in every blob."""
    announce: Callable[[int], int] | None = None
    """What Content-Length says of a blob of some length."""
    ignore_range: bool = False
    wrong_range: bool = False
    failures: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Statuses with headers that the next requests get instead of an answer."""
    redirect_blobs_to: str = ""
    """``http://host:port`` that blobs are fetched from instead."""
    digest_header: str = ""
    realm: str = ""
    """Another token service."""
    forbidden: bool = False
    on_blob: Callable[[str], None] | None = None
    """Called with the digest when a blob is asked for."""


class StandInRegistry:
    """A threaded HTTP server. Use as a context manager."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.seen: list[Seen] = []
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def name(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        """``http://host:port``."""
        return f"http://{self.name}"

    def push(self, image: FakeImage, tag: str = "latest") -> Digest:
        """Take an image in and return the digest of its manifest."""
        self.blobs |= {str(digest): data for digest, data in image.blobs.items()}
        self.manifests[str(image.manifest)] = self.manifests[tag] = image.blobs[image.manifest]
        return image.manifest

    def paths(self, prefix: str = "/v2/app/") -> list[str]:
        """Return what was asked for below a path."""
        return [seen.path for seen in self.seen if seen.path.startswith(prefix)]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                _Exchange(registry, self).answer("")

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", "0"))
                _Exchange(registry, self).answer(self.rfile.read(length).decode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
                """Tests look at `seen` instead."""

            def handle(self) -> None:
                with _broken_pipes_ignored():
                    super().handle()

        return Handler


class _Exchange:
    def __init__(self, registry: StandInRegistry, handler: BaseHTTPRequestHandler) -> None:
        self._registry = registry
        self._behaviour = registry.behaviour
        self._handler = handler
        self._authorization = handler.headers.get("Authorization", "")

    def answer(self, body: str) -> None:
        handler = self._handler
        path = handler.path
        self._registry.seen.append(
            Seen(
                method=handler.command,
                path=path,
                authorization=self._authorization,
                range=handler.headers.get("Range", ""),
                body=body,
            )
        )
        if urlsplit(path).path == "/token":
            self._token(body)
        elif not self._admitted():
            self._challenge()
        elif self._behaviour.failures:
            status, headers = self._behaviour.failures.pop(0)
            self._send(status, b"", headers)
        elif self._behaviour.forbidden:
            self._send(403, b'{"errors":[{"code":"DENIED","message":"not yours"}]}')
        elif "/manifests/" in path:
            self._manifest(path.rpartition("/")[2])
        elif "/blobs/" in path:
            self._blob(path)
        else:
            self._send(200 if path == "/v2/" else 404, b"{}")

    def _admitted(self) -> bool:
        behaviour = self._behaviour
        if behaviour.bearer:
            return self._authorization == "Bearer good-token"
        return not behaviour.users or self._is_user()

    def _is_user(self) -> bool:
        scheme, _, value = self._authorization.partition(" ")
        if scheme != "Basic":
            return False
        user, _, password = base64.b64decode(value).decode().partition(":")
        return self._behaviour.users.get(user) == password

    def _challenge(self) -> None:
        realm = self._behaviour.realm or f"{self._registry.url}/token"
        told = (
            f'Bearer realm="{realm}",service="stand-in",scope="repository:app:pull"'
            if self._behaviour.bearer
            else 'Basic realm="stand-in"'
        )
        self._send(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"log in"}]}', {"WWW-Authenticate": told})

    def _token(self, body: str) -> None:
        behaviour = self._behaviour
        by_refresh = parse_qs(body).get("refresh_token") == [behaviour.refresh_token] and behaviour.refresh_token
        if by_refresh or (not behaviour.refresh_token and (not behaviour.users or self._is_user())):
            self._send(200, json.dumps({"access_token": "good-token", "expires_in": 60}).encode())
        else:
            self._send(401, b"{}")

    def _manifest(self, version: str) -> None:
        data = self._registry.manifests.get(version)
        if data is None:
            self._send(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
            return
        kind = OCI_INDEX if b'"manifests"' in data else OCI_MANIFEST
        told = self._behaviour.digest_header or str(Digest.of(data))
        self._send(200, data, {"Content-Type": kind, "Docker-Content-Digest": told})

    def _blob(self, path: str) -> None:
        behaviour = self._behaviour
        digest = path.rpartition("/")[2]
        data = self._registry.blobs.get(digest)
        if data is None:
            self._send(404, b"{}")
            return
        if behaviour.on_blob is not None:
            behaviour.on_blob(digest)
        if behaviour.redirect_blobs_to:
            self._send(307, b"", {"Location": behaviour.redirect_blobs_to + path})
            return
        if behaviour.corrupt and data[:1] != b"{":
            data = data[:-1] + bytes([data[-1] ^ 1])
        headers = {"Content-Type": "application/octet-stream"}
        match = _RANGE.fullmatch(self._handler.headers.get("Range", ""))
        status, start = 200, 0
        if match and not behaviour.ignore_range:
            status, start = 206, int(match[1])
            first = start + 1 if behaviour.wrong_range else start
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        self._send_blob(status, data, start, headers)

    def _send_blob(self, status: int, data: bytes, start: int, headers: dict[str, str]) -> None:
        behaviour, handler = self._behaviour, self._handler
        is_layer = data[:1] != b"{"
        length = len(data) - start
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header(
            "Content-Length", str(behaviour.announce(length) if behaviour.announce and is_layer else length)
        )
        handler.end_headers()
        rest = data[start:]
        if is_layer and behaviour.cut_after and len(rest) > behaviour.cut_after:
            handler.wfile.write(rest[: behaviour.cut_after])
            handler.close_connection = True
        elif is_layer and 0 <= behaviour.stall_after < len(rest):
            handler.wfile.write(rest[: behaviour.stall_after])
            handler.wfile.flush()
            self._registry.released.wait(60)
            handler.close_connection = True
        else:
            handler.wfile.write(rest)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._handler.send_response(status)
        for name, value in (headers or {}).items():
            self._handler.send_header(name, value)
        self._handler.send_header("Content-Length", str(len(body)))
        self._handler.end_headers()
        self._handler.wfile.write(body)


@contextmanager
def _broken_pipes_ignored() -> Iterator[None]:
    try:
        yield
    except (BrokenPipeError, ConnectionResetError):
        return
