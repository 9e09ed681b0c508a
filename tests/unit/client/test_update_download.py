"""Fetching an update: from whom, how much, and what counts as the right one."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from metalmark.client import ConnectionSettings, ServerAddress, download_update
from metalmark.model import MetalmarkError, ProtocolError, RequestRefused, ServerUnavailable, StableError, TooLarge

pytestmark = pytest.mark.anyio

CONTENT = b"wheels " * 10_000
CHECKSUM = hashlib.sha256(CONTENT).hexdigest()
OFFERED = "http://localhost:6610/v0/updates/abc"


async def fetch(
    folder: Path,
    answer: Callable[[httpx.Request], httpx.Response],
    *,
    url: str = OFFERED,
    host: str = "https://bench.example.com",
    max_bytes: int = 10**6,
) -> bytes:
    target = folder / "artifact.tar"
    await download_update(
        ConnectionSettings(address=ServerAddress.parse(host)),
        url,
        target,
        checksum=CHECKSUM,
        max_bytes=max_bytes,
        environment={},
        transport=httpx.MockTransport(answer),
    )
    return target.read_bytes()


async def test_only_the_server_that_was_named_is_asked_and_without_a_credential(tmp_path: Path) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, stream=httpx.ByteStream(CONTENT))

    url = "https://evil.example.org:99/v0/updates/abc?x=1#y"
    assert await fetch(tmp_path, answer, url=url) == CONTENT
    assert str(asked[0].url) == "https://bench.example.com/v0/updates/abc?x=1"
    assert "authorization" not in asked[0].headers


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (httpx.Response(404), RequestRefused),
        (httpx.Response(503), ServerUnavailable),
        (httpx.Response(302, headers={"location": "https://evil.example.org/"}), ProtocolError),
        (httpx.Response(204), ProtocolError),
        (httpx.Response(200, stream=httpx.ByteStream(CONTENT + b"!")), StableError),
        (httpx.Response(200, stream=httpx.ByteStream(CONTENT[:-1])), StableError),
        (httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"none")), StableError),
    ],
)
async def test_nothing_is_there_after_a_failure(
    tmp_path: Path, response: httpx.Response, error: type[MetalmarkError]
) -> None:
    with pytest.raises(error):
        await fetch(tmp_path, lambda _: response)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["http://[::1", "http://[x/v0/updates/abc"])
async def test_an_address_that_is_none_is_the_servers_fault(tmp_path: Path, url: str) -> None:
    with pytest.raises(ProtocolError):
        await fetch(tmp_path, lambda _: httpx.Response(200, content=CONTENT), url=url)


async def test_the_bound_holds_for_what_is_announced_and_for_what_comes(tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="1000 bytes"):
        await fetch(tmp_path, lambda _: httpx.Response(200, content=CONTENT), max_bytes=1000)

    def pieces() -> Iterator[bytes]:
        while True:
            yield b"x" * 100

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in pieces():
                yield piece

    with pytest.raises(TooLarge):
        await fetch(tmp_path, lambda _: httpx.Response(200, stream=Endless()), max_bytes=1000)
    assert list(tmp_path.iterdir()) == []


async def test_a_broken_connection_is_told_as_one(tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("reset", request=request)

    with pytest.raises(ServerUnavailable, match="reset"):
        await fetch(tmp_path, answer)
