"""Bytes that no honest client sends: refused, never an internal fault, and nobody else notices."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import pytest


def sent(world: Any, data: bytes) -> bytes:
    """Send bytes and return the answer up to where the server closes or stops."""
    place = urlsplit(world.url)
    received = b""
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        connection.sendall(data)
        connection.settimeout(3)
        try:
            while piece := connection.recv(65536):
                received += piece
        except (TimeoutError, ConnectionResetError):
            pass
    return received


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
        b"NONSENSE\r\n\r\n",
        b"GET /v0/projects HTTP/1.1\r\nHost: x\r\nbad header line\r\n\r\n",
        b"GET /v0/projects HTTP/1.1\r\nHost: x\r\nname : value\r\n\r\n",
        b"POST /v0/runners HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v0/runners HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nnull",
        b"POST /v0/runners HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET",
        b"POST /v0/runners HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"GET /v0/projects HTTP/1.1\r\nHost: x\r\nx-large: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /v0/projects?" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=lambda data: repr(data[:60]),
)
def test_what_is_no_request_is_refused(world: Any, data: bytes) -> None:
    answer = sent(world, data)
    assert not answer.startswith(b"HTTP/1.1 5"), answer[:300]
    assert not answer.startswith(b"HTTP/1.1 2"), answer[:300]
    assert answer.count(b"HTTP/1.1 ") <= 1, answer
    assert world.get("/v0/server/version").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v0/projects/%00",
        "/v0/projects/%ff%fe",
        "/v0/projects/%zz",
        "/v0/projects/a%0d%0aX-Injected:%201",
        "/v0/projects/" + "a" * 3000,
        "/v0/projects/..%2f..%2fetc%2fpasswd",
        "/v0/projects/%E2%80%AE",
    ],
)
def test_paths_that_name_nothing(world: Any, path: str) -> None:
    answer = world.raw("GET", path, by=world.admin.jwt)
    assert answer.status in {400, 404}, answer
    assert "x-injected" not in answer.headers


@pytest.mark.parametrize("query", ["search=%00", "search=%ff", "name=%00", "search=%25%25%25", "search=" + "a" * 3000])
@pytest.mark.parametrize("path", ["/v0/projects", "/v0/runners", "/v0/specs", "/v0/organizations", "/v0/users"])
def test_queries_that_match_nothing(world: Any, path: str, query: str) -> None:
    answer = world.raw("GET", f"{path}?{query}", by=world.admin.jwt)
    assert answer.status in {200, 400}, answer


def test_many_requests_on_one_connection(world: Any) -> None:
    request = b"GET /v0/server/version HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = sent(world, request * 20 + b"GET /v0/server/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 21


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip", "fly-client-ip", "x-forwarded-proto"])
def test_forwarded_headers_of_strangers_do_no_harm(world: Any, header: str) -> None:
    for value in ("10.0.0.1", "not an address", "::1", "a" * 4000, '"><script>', "1.2.3.4, 5.6.7.8"):
        assert world.get("/v0/server/version", headers={header: value}).status_code == 200
