"""References to images in registries: ``host[:port]/repository[:tag][@digest]``.

Grammar: OCI distribution specification 1.1, "Pulling manifests", with Docker's rule for telling a host from the first
part of a repository. The host is never guessed: Metalmark talks to no registry that the user did not name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from metalmark.model import Digest, InputError

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST_AND_PORT = re.compile(rf"({_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:.]+\])(?::([0-9]{{1,5}}))?")
_PART = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_MAX_REFERENCE = 4096
_MAX_NAME = 255
DOCKER_HUB = "docker.io"
DOCKER_HUB_SERVER = "registry-1.docker.io"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A well-formed reference. Made by `parse`."""

    host: str
    """As the user wrote it, without the port."""
    port: int | None
    repository: str
    tag: str
    """``latest`` when neither tag nor digest was given; empty when only a digest was."""
    digest: Digest | None

    @classmethod
    def parse(cls, text: str, *, field: str = "IMAGE") -> Reference:
        """Read a reference.

        Raises:
            InputError: Malformed, or it does not name its registry.
        """
        if len(text) > _MAX_REFERENCE:
            raise InputError(field, f"{text[:64]}…", f"a reference has at most {_MAX_REFERENCE} characters")
        rest, at, digest_text = text.partition("@")
        digest = Digest.parse(digest_text, field=f"{field}: digest") if at else None
        name, tag = _split_tag(rest)
        if tag is not None and not _TAG.fullmatch(tag):
            raise InputError(field, text, f"{tag!r} is not a tag", hint="a tag has 1 to 128 of A-Z a-z 0-9 . _ -")
        host, port, repository = _split_host(name, text, field)
        for part in repository.split("/"):
            if not _PART.fullmatch(part):
                raise InputError(
                    field, text, f"{part!r} cannot be part of a repository's name", hint="use a-z 0-9 and . _ - between"
                )
        if len(repository) > _MAX_NAME:
            raise InputError(field, text, f"a repository's name has at most {_MAX_NAME} characters")
        if host == DOCKER_HUB and "/" not in repository:
            repository = f"library/{repository}"
        return cls(host=host, port=port, repository=repository, digest=digest, tag=tag or ("" if digest else "latest"))

    @property
    def registry(self) -> str:
        """``host[:port]``: what credentials are filed under."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    @property
    def server(self) -> str:
        """``host[:port]`` to connect to; it differs from the name for Docker Hub alone."""
        return DOCKER_HUB_SERVER if self.host == DOCKER_HUB and self.port is None else self.registry

    @property
    def version(self) -> str:
        """What to ask the registry for: the digest when there is one, else the tag."""
        return str(self.digest) if self.digest is not None else self.tag

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def _split_tag(text: str) -> tuple[str, str | None]:
    name, colon, tag = text.rpartition(":")
    if not colon or "/" in tag or "/" not in name:
        return text, None
    return name, tag


def _split_host(name: str, text: str, field: str) -> tuple[str, int | None, str]:
    if "://" in text:
        raise InputError(field, text, "a reference has no scheme", hint=f"write {text.partition('://')[2]}")
    first, slash, repository = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        raise InputError(
            field,
            text,
            "no such file or folder, and as a reference it does not name its registry",
            hint=f"name the registry: {DOCKER_HUB}/{text} or HOST:PORT/{text}",
        )
    match = _HOST_AND_PORT.fullmatch(first)
    if match is None or int(match[2] or 1) not in range(1, 65536):
        raise InputError(field, text, f"{first!r} is not a host or host:port")
    return match[1].lower(), int(match[2]) if match[2] else None, repository
