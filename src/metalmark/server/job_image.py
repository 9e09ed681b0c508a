"""The digest of a job's image, fixed at submission: what is run is what was there then."""

from __future__ import annotations

from dataclasses import dataclass

from metalmark.model import Digest, InputError
from metalmark.oci import Patience, RegistryAccess, resolve_reference
from metalmark.server.config import ServerConfig
from metalmark.server.image_reference import ForeignImage, OwnImage
from metalmark.store import Connection, ProjectRecord, RepositoryPlace, find_manifest_digest

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


async def fix_foreign_image(image: ForeignImage) -> FixedImage:
    """Find out which digest an image in another registry has now.

    It is asked as nobody: with credentials of the operator, submitters would reach what they may not.

    Raises:
        ImageError: The registry has no such image.
        RegistryDenied: It said no.
        RegistryUnavailable: It could not be reached.
    """
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


async def fix_own_image(
    connection: Connection, image: OwnImage, project: ProjectRecord | None, config: ServerConfig
) -> FixedImage:
    """Find out which digest an image in this server's registry has now.

    A digest is taken as it is, and need not be there yet.

    Args:
        connection: Of any transaction.
        image: The image.
        project: Whose job it is; None where that is about to be made.
        config: Where the registry is.

    Raises:
        InputError: The project has no such tag.
    """
    digest = image.digest
    if digest is None and project is not None:
        place = RepositoryPlace(project_id=project.id, inner=image.inner(project.id, project.slug))
        digest = await find_manifest_digest(connection, place, image.tag)
    if digest is None:
        hint = "push it with `metalmark image push`; images of docker.io need it in registry.allowed"
        asked = f"{image.repository}:{image.tag}"
        raise InputError("job.image", asked, "the project's repository has no such tag", hint=hint)
    return FixedImage(registry_url=config.registry_url, digest=digest, own=True)
