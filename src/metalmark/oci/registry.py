"""Images in registries that speak the OCI distribution specification 1.1 or Docker's registry protocol, version 2."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import anyio
import httpx

from metalmark.model import Digest, DigestMismatch, RegistryUnavailable
from metalmark.oci.access import RegistryAccess
from metalmark.oci.incoming import IncomingBlob
from metalmark.oci.manifest import MAX_DOCUMENT_BYTES, Descriptor
from metalmark.oci.media import ACCEPTED, CONFIGS
from metalmark.oci.origin import Advance, Root
from metalmark.oci.reference import Reference
from metalmark.oci.registry_answers import Hiccup, read_bounded
from metalmark.oci.registry_client import RegistryClient
from metalmark.system import in_thread

_CHUNK_BYTES = 1024 * 1024
_DOCUMENT_TIMEOUT_S = 60.0
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")


class RegistryOrigin:
    """One image in a registry.

    Args:
        reference: Which.
        access: Credentials, transport and patience.
    """

    def __init__(self, reference: Reference, access: RegistryAccess) -> None:
        self._reference = reference
        self._access = access
        self._client = RegistryClient(reference, access)

    @property
    def plain_http(self) -> bool:
        """Whether the registry is spoken to without TLS; known once something was asked."""
        return self._client.plain_http

    async def root(self) -> Root:
        """Return the manifest or index of the reference."""
        version = self._reference.version
        data, headers = await self._document(f"manifests/{version}", {"Accept": ", ".join(ACCEPTED)})
        asked = self._reference.digest
        digest = Digest.of(data, asked.algorithm if asked is not None else "sha256")
        told = headers.get("Docker-Content-Digest", "")
        if (asked is not None and digest != asked) or (told.startswith("sha256:") and str(Digest.of(data)) != told):
            raise DigestMismatch(
                f"{self._reference.registry} answered with a manifest of digest {digest}",
                why=f"{asked or told} was {'asked for' if asked else 'announced'}",
                hint="do not trust this registry or what is between",
            )
        return Root.read(data, digest, media_type=headers.get("Content-Type", ""), what=f"manifest {digest}")

    async def read(self, descriptor: Descriptor) -> bytes:
        """Return a manifest, index or configuration."""
        kind = "blobs" if descriptor.media_type in CONFIGS else "manifests"
        headers = {} if kind == "blobs" else {"Accept": descriptor.media_type}
        return (await self._document(f"{kind}/{descriptor.digest}", headers))[0]

    async def copy(self, descriptor: Descriptor, blob: IncomingBlob, advance: Advance) -> None:
        """Write a layer into the cache; after a break it goes on where it was.

        Raises:
            DigestMismatch: The registry announces or sends another length.
            RegistryUnavailable: It kept breaking, or came too slowly.
        """
        limit_s = 60.0 + descriptor.size_bytes / self._access.patience.slowest_bytes_per_s
        try:
            with anyio.fail_after(limit_s):
                await self._client.retry(
                    blob.what, lambda: self._copy_rest(descriptor, blob, advance), lambda: blob.written
                )
        except TimeoutError as error:
            raise RegistryUnavailable(
                f"{blob.what} came too slowly from {self._reference.registry}",
                why=f"{blob.written} of {blob.size_bytes} bytes in {limit_s:.0f} s",
                hint="try again later",
            ) from error

    async def pieces(self, descriptor: Descriptor, offset: int) -> AsyncIterator[bytes]:
        """Yield a blob from an offset on.

        Raises:
            Hiccup: The connection broke; asked from there again, it may go on.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self._client.get(f"blobs/{descriptor.digest}", headers) as response:
            skip = offset if response.status_code == 200 else 0
            async for piece in response.aiter_raw(_CHUNK_BYTES):
                dropped = min(skip, len(piece))
                skip -= dropped
                if dropped < len(piece):
                    yield piece[dropped:]

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _document(self, path: str, headers: dict[str, str]) -> tuple[bytes, httpx.Headers]:
        async def attempt() -> tuple[bytes, httpx.Headers]:
            with anyio.fail_after(_DOCUMENT_TIMEOUT_S):
                async with self._client.get(path, headers) as response:
                    return await read_bounded(response, MAX_DOCUMENT_BYTES), response.headers

        async def in_time() -> tuple[bytes, httpx.Headers]:
            try:
                return await attempt()
            except TimeoutError as error:
                raise Hiccup("it did not answer in time") from error

        return await self._client.retry(path, in_time)

    async def _copy_rest(self, descriptor: Descriptor, blob: IncomingBlob, advance: Advance) -> None:
        if blob.written == blob.size_bytes:
            return
        headers = {"Range": f"bytes={blob.written}-"} if blob.written else {}
        async with self._client.get(f"blobs/{descriptor.digest}", headers) as response:
            skip = _to_skip(response, blob)
            pending = bytearray()
            try:
                async for piece in response.aiter_raw():
                    dropped = min(skip, len(piece))
                    skip -= dropped
                    pending += piece[dropped:]
                    if len(pending) >= _CHUNK_BYTES:
                        await _flush(pending, blob, advance)
            finally:
                # What has come is kept when the connection breaks: the next try starts after it.
                with anyio.CancelScope(shield=True):
                    await _flush(pending, blob, advance)
        if blob.written < blob.size_bytes:
            raise Hiccup(f"it ended after {blob.written} of {blob.size_bytes} bytes")


async def _flush(pending: bytearray, blob: IncomingBlob, advance: Advance) -> None:
    data = bytes(pending)
    pending.clear()
    if data:
        await in_thread(blob.write, data)
        advance(blob.written)


def _to_skip(response: httpx.Response, blob: IncomingBlob) -> int:
    """Return how many bytes of the answer are there already; check that it is about the right blob."""
    offset = blob.written
    length = response.headers.get("Content-Length", "")
    if response.status_code == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != offset or match[3] not in ("*", str(blob.size_bytes)):
            raise DigestMismatch(
                f"{blob.what}: the registry sends {response.headers.get('Content-Range', 'no range')!r}",
                why=f"the rest from byte {offset} of {blob.size_bytes} was asked for",
            )
        return 0
    if length.isdigit() and int(length[:19]) != blob.size_bytes:
        raise DigestMismatch(
            f"{blob.what}: the registry announces {length[:19]} bytes", why=f"the manifest says {blob.size_bytes}"
        )
    return offset
