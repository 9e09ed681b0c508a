"""The digest of a job's image, fixed at submission: what is run is what was there then."""

from __future__ import annotations

from dataclasses import dataclass

from metalmark.model import Digest, InputError
from metalmark.oci import Patience, RegistryAccess, resolve_reference
from metalmark.server.config import ServerConfig
from metalmark.server.image_reference import ForeignImage, OwnImage

_TIMEOUT_S = 30.0
# A submitter waits for this, and can submit again.
_PATIENCE = Patience(connect_s=5.0, idle_s=10.0, attempts=2, first_wait_s=0.2, longest_wait_s=1.0)


@dataclass(frozen=True, kw_only=True)
class FixedImage:
    """An image as a job carries it."""

    registry_url: str
    """Where its registry was found, with a slash at its end."""
    digest: Digest
    own: bool
    """Whether it is in this server's registry."""
    repository: str | None = None
    """Where it is in another registry; None in this server's, where that is the project."""


async def fix_image(image: OwnImage | ForeignImage, config: ServerConfig) -> FixedImage:
    """Find out which digest an image has now.

    Other registries are asked as nobody: with credentials of the operator, submitters would reach what they may not.

    Raises:
        InputError: This server's registry has no such tag.
        ImageError: Another registry has no such image.
        RegistryDenied: It said no.
        RegistryUnavailable: It could not be reached.
    """
    if isinstance(image, ForeignImage):
        access = RegistryAccess(patience=_PATIENCE)
        found = await resolve_reference(image.reference, access, timeout_s=_TIMEOUT_S)
        # Only a registry on loopback is asked without TLS, and its runner has to know.
        scheme = "http" if found.plain_http else "https"
        return FixedImage(
            registry_url=f"{scheme}://{image.reference.registry}/",
            digest=found.digest,
            own=False,
            repository=image.reference.repository,
        )
    if image.digest is None:
        hint = "push the image, or name it by its digest; images of docker.io need it in registry.allowed"
        raise InputError("job.image", image.tag, "the project's repository has no such tag", hint=hint)
    return FixedImage(registry_url=config.registry_url, digest=image.digest, own=True)
