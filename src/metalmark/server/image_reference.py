"""The image of a job: whose registry it is in, and which project its name stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import UUID

from metalmark.model import Digest, InputError, ResourceId, parse_resource_id
from metalmark.oci import Reference

_FIELD = "job.image"
_HUB = "docker.io"
_HUB_FOLDER = "library/"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True)
class OwnImage:
    """An image in this server's registry."""

    project: ResourceId | None
    """The project that its repository is named after; None when it is named after none."""
    repository: str
    """All of its name."""
    tag: str
    digest: Digest | None
    """Counts before the tag."""

    @property
    def possible_project(self) -> ResourceId | None:
        """The project that its repository may be in, if there is one of that name: ``PROJECT/NAME``."""
        try:
            return parse_resource_id(self.repository.partition("/")[0])
        except InputError:
            return None

    def inner(self, project_id: UUID, slug: str) -> str:
        """Return its repository within a project.

        A name that begins with another word than the project's is that of an image elsewhere, which clients of public
        servers leave as it is: then the project's own repository is meant.
        """
        first, _, rest = self.repository.partition("/")
        return rest if first in (slug, str(project_id)) else ""


@dataclass(frozen=True, kw_only=True)
class ForeignImage:
    """An image in another registry, one that the operator allows."""

    reference: Reference


def parse_image(text: str, *, registry_url: str, allowed: Sequence[str]) -> OwnImage | ForeignImage:
    """Read the image of a job.

    Args:
        text: As it was submitted. Without a registry it is in this server's; so it is with Docker Hub's name, which
            clients put before names that have none, unless that is allowed itself.
        registry_url: Where this server's registry is.
        allowed: Other registries that images may come from, as ``host`` or ``host:port``.

    Raises:
        InputError: It is malformed, or in a registry that is not allowed.
    """
    first, slash, rest = text.partition("/")
    named = bool(slash) and ("." in first or ":" in first or first == "localhost")
    if not named:
        return _own(text)
    if first.lower() in {name.lower() for name in allowed}:
        return ForeignImage(reference=Reference.parse(text, field=_FIELD))
    if first.lower() in {_HUB, *_own_names(registry_url)}:
        return _own(rest)
    raise InputError(
        _FIELD,
        text[:256],
        f"this server takes no images of {first}",
        hint="push it to the server's own registry, or have the operator add it to registry.allowed",
    )


def _own_names(registry_url: str) -> frozenset[str]:
    url = urlsplit(registry_url)
    host = (url.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    return frozenset((host, f"{host}:{url.port or _PORTS.get(url.scheme, 443)}"))


def _own(name: str) -> OwnImage:
    # Parsed under a host of no meaning: the rules for repository, tag and digest are those of every registry.
    reference = Reference.parse(f"localhost/{name.removeprefix(_HUB_FOLDER)}", field=_FIELD)
    project = None
    if "/" not in reference.repository:
        try:
            project = parse_resource_id(reference.repository)
        except InputError:
            # Such a name (`my_app`) is no project's; then the run says which one it is.
            project = None
    return OwnImage(project=project, repository=reference.repository, tag=reference.tag, digest=reference.digest)
