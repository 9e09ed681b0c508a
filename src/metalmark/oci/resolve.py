"""What a reference stands for just now, and how its registry is spoken to."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from metalmark.model import Digest, RegistryUnavailable
from metalmark.oci.access import RegistryAccess
from metalmark.oci.reference import Reference
from metalmark.oci.registry import RegistryOrigin


@dataclass(frozen=True, kw_only=True)
class ResolvedReference:
    """What the registry had under a reference."""

    digest: Digest
    """Of the manifest or index."""
    plain_http: bool
    """Whether the registry was spoken to without TLS."""


async def resolve_reference(reference: Reference, access: RegistryAccess, *, timeout_s: float) -> ResolvedReference:
    """Ask the registry for the manifest or index of a reference, and return its digest.

    A digest in the reference is checked all the same: the image has to be there.

    Args:
        reference: Which image.
        access: Credentials, transport and patience.
        timeout_s: The longest that this may take, retries and all.

    Raises:
        ImageError: There is no such image, or what is there is none.
        RegistryDenied: The registry said no.
        RegistryUnavailable: It could not be reached, or was too slow.
    """
    origin = RegistryOrigin(reference, access)
    try:
        with anyio.fail_after(timeout_s):
            digest = (await origin.root()).digest
    except TimeoutError as error:
        raise RegistryUnavailable(
            f"{reference.registry} did not answer within {timeout_s:g} s", hint="try again later"
        ) from error
    finally:
        with anyio.CancelScope(shield=True):
            await origin.aclose()
    assert digest is not None, "a registry's document has a digest"
    return ResolvedReference(digest=digest, plain_http=origin.plain_http)
