"""Fetching another version of the runner from the server that offers it: bounded, with deadlines, checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio

import metalmark
from metalmark.client.proxy import proxy_of
from metalmark.client.settings import ConnectionSettings
from metalmark.client.trust import tls_context
from metalmark.model import ProtocolError, RequestRefused, ServerUnavailable, StableError, TooLarge
from metalmark.system import in_thread, published

if TYPE_CHECKING:
    import httpx

DEADLINE_S = 1800.0
"""For the whole of it."""
_SILENCE_S = 60.0
_PIECES = 64 * 1024
_UNUSABLE = "the server offers an update without a usable address"


async def download_update(
    settings: ConnectionSettings,
    url: str,
    target: Path,
    *,
    checksum: str,
    max_bytes: int,
    environment: Mapping[str, str],
    transport: httpx.AsyncBaseTransport | None = None,
) -> None:
    """Download an artifact into a new file. It is there when its checksum is right, and not at all otherwise.

    Only the path of the URL is used, with the server's own address, and no credential is sent: an offer cannot make a
    runner speak to anybody else.

    Args:
        settings: The server.
        url: As it was offered.
        target: The file.
        checksum: SHA-256 of the content, lower-case hex.
        max_bytes: The most that is taken.
        environment: Where ``SSL_CERT_FILE`` is read.
        transport: Instead of the network, for tests.

    Raises:
        TooLarge: It is longer than allowed.
        StableError: It has another checksum.
        RequestRefused: The server has no such file.
        ServerUnavailable: It could not be fetched in time.
        ProtocolError: The answer is neither a file nor a refusal.
        NoSpace: The file system is full.
    """
    import httpx  # noqa: PLC0415 - heavy; importing this module costs nothing

    address = settings.address
    own = urlsplit(str(address))
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ProtocolError(_UNUSABLE) from None
    there = parts._replace(scheme=own.scheme, netloc=own.netloc, fragment="").geturl()
    context = await in_thread(tls_context, settings.trust, environment) if address.scheme == "https" else False
    try:
        with anyio.fail_after(DEADLINE_S):
            async with httpx.AsyncClient(
                verify=context,
                transport=transport,
                proxy=None if transport else proxy_of(settings),
                trust_env=False,
                follow_redirects=False,
                timeout=httpx.Timeout(_SILENCE_S, connect=settings.patience.connect_s),
                headers={"User-Agent": f"metalmark/{metalmark.__version__}", "Accept-Encoding": "identity"},
            ) as client:
                async with client.stream("GET", there) as response:
                    await _store(response, target, checksum, max_bytes)
    except (httpx.TransportError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise ServerUnavailable(f"{address} broke off while an update was fetched: {reason}") from None
    except httpx.InvalidURL:
        raise ProtocolError(_UNUSABLE) from None


async def _store(response: httpx.Response, target: Path, checksum: str, max_bytes: int) -> None:
    if response.status_code >= 500:
        raise ServerUnavailable(f"the server answers {response.status_code} to the request for an update")
    if response.status_code >= 400:
        raise RequestRefused(
            f"the server answers {response.status_code} to the request for an update",
            why="it was withdrawn, or is not at this server",
            status=response.status_code,
        )
    if response.status_code != 200:
        raise ProtocolError(f"the server answers {response.status_code} to the request for an update")
    hint = "--max-download-size bounds it"
    announced = response.headers.get("content-length", "")
    if announced.isascii() and announced.isdecimal() and len(announced) < 20 and int(announced) > max_bytes:
        raise TooLarge("the update", max_bytes, hint=hint)
    digest, size = hashlib.sha256(), 0
    with published(target) as stream:
        # As it is: nothing between is to unpack it.
        async for piece in response.aiter_raw(_PIECES):
            size += len(piece)
            if size > max_bytes:
                raise TooLarge("the update", max_bytes, hint=hint)
            digest.update(piece)
            stream.write(piece)
        if digest.hexdigest() != checksum:
            raise StableError("the update has another checksum than was offered", why="it is not used")
