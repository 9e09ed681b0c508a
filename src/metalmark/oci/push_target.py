"""Blobs and manifests on their way into a registry: OCI distribution specification 1.1, "Push"."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass

import httpx

from metalmark.model import MIB, NotAnImage
from metalmark.oci.access import RegistryAccess
from metalmark.oci.manifest import Descriptor
from metalmark.oci.origin import Advance
from metalmark.oci.reference import Reference
from metalmark.oci.registry_answers import Hiccup
from metalmark.oci.registry_client import Ask, RegistryClient
from metalmark.oci.upload_record import UploadRecord

CHUNK_BYTES = 64 * MIB
"""Sent with one request; a broken connection costs no more, whatever the registry keeps of a broken request."""
_SLOWEST_COMMIT = 20 * MIB
"""Bytes a second at which a registry is at least expected to publish what it was sent."""
_COMMIT_S = 60.0
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,19})")
_OCTETS = "application/octet-stream"

Pieces = Callable[[int], AsyncIterator[bytes]]
"""Yields a blob from an offset on."""


@dataclass(kw_only=True)
class _Upload:
    descriptor: Descriptor
    pieces: Pieces
    advance: Advance
    record: UploadRecord
    offset: int = 0
    reached: int = 0


class PushTarget:
    """A repository that an image is pushed to.

    Args:
        reference: Where; its registry and repository count.
        access: Credentials, transport and patience.
    """

    def __init__(self, reference: Reference, access: RegistryAccess) -> None:
        self._repository = reference.repository
        self._client = RegistryClient(reference, access, actions="pull,push")

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def has(self, descriptor: Descriptor) -> bool:
        """Whether a blob is there.

        Raises:
            RegistryDenied: The registry said no.
            RegistryUnavailable: It could not be asked.
        """
        what = f"blob {descriptor.digest}"
        return await self._client.retry(what, lambda: self._has(descriptor))

    async def mount(self, descriptor: Descriptor, repository: str) -> bool:
        """Take a blob over from another repository of the same registry; whether that could be done."""

        async def attempt() -> bool:
            query = httpx.QueryParams({"mount": str(descriptor.digest), "from": repository})
            async with self._client.ask(Ask("POST", f"blobs/uploads/?{query}", expected=(201, 202))) as response:
                if response.status_code == 201:
                    return True
                started = _location(response)
            async with self._client.ask(Ask("DELETE", started, expected=(200, 202, 204, 404, 405))):
                return False

        return await self._client.retry(f"blob {descriptor.digest}", attempt)

    async def upload(self, descriptor: Descriptor, pieces: Pieces, advance: Advance, record: UploadRecord) -> None:
        """Send a blob; after a break it goes on where the registry says that it is.

        Args:
            descriptor: The blob.
            pieces: Yields it from an offset on.
            advance: Told how many bytes have arrived.
            record: Where an earlier process left off, and where this one is.

        Raises:
            RegistryDenied: The registry refused it, for its digest or size perhaps.
            RegistryUnavailable: It kept breaking.
        """
        upload = _Upload(descriptor=descriptor, pieces=pieces, advance=advance, record=record)
        await self._client.retry(f"blob {descriptor.digest}", lambda: self._attempt(upload), lambda: upload.reached)
        record.remove()

    async def put_manifest(self, data: bytes, media_type: str, version: str) -> None:
        """Put a manifest or index under a tag or its digest.

        Raises:
            RegistryDenied: The registry refused it.
            RegistryUnavailable: It could not be reached.
        """
        ask = Ask(
            "PUT", f"manifests/{version}", headers={"Content-Type": media_type}, content=lambda: data, expected=(201,)
        )

        async def attempt() -> None:
            async with self._client.ask(ask):
                pass

        await self._client.retry(f"manifest {version}", attempt)

    async def delete(self, version: str) -> None:
        """Delete a tag, or a manifest by its digest.

        Raises:
            ImageNotFound: There is none.
            RegistryDenied: The registry refused.
            RegistryUnavailable: It could not be reached.
        """

        async def attempt() -> None:
            async with self._client.ask(Ask("DELETE", f"manifests/{version}", expected=(200, 202, 204))):
                pass

        await self._client.retry(f"manifest {version}", attempt)

    async def _has(self, descriptor: Descriptor) -> bool:
        async with self._client.ask(Ask("HEAD", f"blobs/{descriptor.digest}", expected=(200, 404))) as response:
            return response.status_code == 200

    async def _attempt(self, upload: _Upload) -> None:
        if upload.record.location and not await self._go_on(upload):
            return
        if not upload.record.location:
            async with self._client.ask(Ask("POST", "blobs/uploads/", expected=(202,))) as response:
                upload.record.location = _location(response)
            # Some registries keep what came of a request that broke; then a killed push need not begin anew.
            upload.record.keep()
            upload.offset = 0
        upload.advance(upload.offset)
        size = upload.descriptor.size_bytes
        while size - upload.offset > CHUNK_BYTES:
            await self._send_chunk(upload)
        await self._send_last(upload)

    async def _go_on(self, upload: _Upload) -> bool:
        """Find out how far an upload is; False when it is complete."""
        async with self._client.ask(Ask("GET", upload.record.location, expected=(204, 200, 404, 400))) as response:
            match = _RANGE.fullmatch(response.headers.get("Range", "")) if response.status_code < 300 else None
        if match is None or int(match[1]) >= upload.descriptor.size_bytes:
            # It is gone: because it came to its end, perhaps, and only the answer was lost.
            upload.record.location = ""
            return not await self._has(upload.descriptor)
        # An upload of nothing and one of a single byte look the same, and nobody sends single bytes.
        upload.offset = int(match[1]) + 1 if int(match[1]) else 0
        upload.reached = max(upload.reached, upload.offset)
        return True

    async def _send_chunk(self, upload: _Upload) -> None:
        first, length = upload.offset, CHUNK_BYTES
        headers = {
            "Content-Type": _OCTETS,
            "Content-Length": str(length),
            "Content-Range": f"{first}-{first + length - 1}",
        }
        ask = Ask(
            "PATCH",
            upload.record.location,
            headers=headers,
            content=lambda: _part(upload, first, length),
            expected=(202, 416),
            answer_s=_COMMIT_S,
            lost="the registry forgot the upload",
        )
        async with self._client.ask(ask) as response:
            if response.status_code == 416:
                raise Hiccup("the registry has another part of it than it said")
            upload.record.location = _location(response)
        upload.offset = upload.reached = first + length
        upload.record.keep()

    async def _send_last(self, upload: _Upload) -> None:
        first, size = upload.offset, upload.descriptor.size_bytes
        headers = {"Content-Type": _OCTETS, "Content-Length": str(size - first)}
        if first and first < size:
            headers["Content-Range"] = f"{first}-{size - 1}"
        location = httpx.URL(upload.record.location).copy_merge_params({"digest": str(upload.descriptor.digest)})
        ask = Ask(
            "PUT",
            str(location),
            headers=headers,
            content=lambda: _part(upload, first, size - first),
            expected=(201, 416),
            answer_s=_COMMIT_S + size / _SLOWEST_COMMIT,
            lost="the registry forgot the upload",
        )
        async with self._client.ask(ask) as response:
            if response.status_code == 416:
                raise Hiccup("the registry has another part of it than it said")
        upload.reached = size
        upload.advance(size)


async def _part(upload: _Upload, first: int, length: int) -> AsyncIterator[bytes]:
    sent = 0
    # A generator that is left in the middle holds a connection or a file.
    async with aclosing(upload.pieces(first)) as pieces:  # type: ignore[type-var]  # generators, all of them
        async for piece in pieces:
            part = piece[: length - sent]
            yield part
            sent += len(part)
            upload.advance(first + sent)
            if sent == length:
                return
    if sent < length:
        raise NotAnImage(
            f"blob {upload.descriptor.digest} ends after {first + sent} bytes",
            why=f"the image says it has {upload.descriptor.size_bytes}",
        )


def _location(response: httpx.Response) -> str:
    location = response.headers.get("Location", "")
    if not location:
        raise Hiccup("it does not say where to upload to")
    return str(response.request.url.join(location))
