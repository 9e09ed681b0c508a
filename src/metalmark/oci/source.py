"""Where an image comes from, told by a prefix or by looking.

Prefixes are skopeo's: ``oci:PATH[:TAG]``, ``oci-archive:PATH[:TAG]``, ``docker-archive:PATH[:NAME]`` and
``docker://REFERENCE``. Without one, a path that exists is looked at, and anything else is a registry reference.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from metalmark.model import ImageNotFound, InputError, NoPermission, NotAnImage
from metalmark.oci.bundle import names_in_tar
from metalmark.oci.reference import Reference

_ELSEWHERE = ("docker-daemon:", "containers-storage:", "dir:", "ostree:", "tarball:", "sif:")


class SourceKind(StrEnum):
    """The forms an image can have."""

    OCI = "oci"
    """An OCI image layout, as a folder."""
    OCI_ARCHIVE = "oci-archive"
    """An OCI image layout, as a tar file."""
    DOCKER_ARCHIVE = "docker-archive"
    """What ``docker save`` writes, as a tar file or unpacked into a folder."""
    REGISTRY = "docker"
    """An image in a registry."""


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """One image, by the place where it is."""

    kind: SourceKind
    location: str
    """An absolute path, or a registry reference in full."""
    selector: str = ""
    """Which image of a layout or archive: a tag, a name with tag, or ``@digest``; empty when there is only one."""

    def __str__(self) -> str:
        if self.kind is SourceKind.REGISTRY:
            return f"docker://{self.location}"
        mark = ":" if self.selector and not self.selector.startswith("@") else ""
        return f"{self.kind}:{self.location}{mark}{self.selector}"


def parse_source(text: str, *, field: str = "IMAGE") -> ImageSource:
    """Read what a user wrote for an image. Looks at the file system, never at a network.

    Args:
        text: A path, a prefixed path or a registry reference.
        field: The argument it came from, for errors.

    Raises:
        InputError: Neither a path nor a well-formed reference with a host.
        ImageNotFound: A path was meant and there is nothing.
        NotAnImage: There is something, and it is not an image.
        NoPermission: It may not be read.
    """
    if not text.strip() or "\0" in text:
        raise InputError(field, text, "it is empty" if not text.strip() else "it holds a NUL")
    if text.startswith("docker://"):
        return _registry(text.removeprefix("docker://"), field)
    for prefix in _ELSEWHERE:
        if text.startswith(prefix):
            raise InputError(
                field, text, f"{prefix} is not read here", hint="export it: skopeo copy SOURCE oci-archive:image.tar"
            )
    for kind in (SourceKind.OCI, SourceKind.OCI_ARCHIVE, SourceKind.DOCKER_ARCHIVE):
        if text.startswith(f"{kind}:"):
            path, selector = _split_path(text.removeprefix(f"{kind}:"), field)
            return _checked(kind, path, selector)
    found = _find_path(text)
    if found is not None:
        path, selector = found
        return ImageSource(kind=_look(path), location=str(path.absolute()), selector=selector)
    if text.startswith(("/", "./", "../", "~")):
        raise _missing(text)
    return _registry(text, field)


def _registry(text: str, field: str) -> ImageSource:
    if not text:
        raise InputError(field, text, "a reference is missing after the prefix", hint="write docker://HOST/REPOSITORY")
    return ImageSource(kind=SourceKind.REGISTRY, location=str(Reference.parse(text, field=field)))


def _split_path(text: str, field: str) -> tuple[Path, str]:
    if not text:
        raise InputError(field, text, "a path is missing after the prefix")
    found = _find_path(text)
    if found is None:
        raise _missing(text)
    return found


def _find_path(text: str) -> tuple[Path, str] | None:
    """Return the longest part of the text that exists and what follows it, split at ``:`` or before ``@``."""
    for end in (len(text), *(n for n in range(len(text) - 1, 0, -1) if text[n] in ":@")):
        path = Path(text[:end])
        try:
            exists = path.exists()
        except PermissionError as error:
            raise NoPermission(f"{path} may not be looked at", hint="run as a user who may") from error
        except OSError:  # a name too long to exist
            exists = False
        if exists:
            rest = text[end:]
            return path, rest.removeprefix(":")
    return None


def _missing(text: str) -> ImageNotFound:
    return ImageNotFound(f"there is no file or folder {text}", hint=f"check the path: ls -d {shlex.quote(text)}")


def _checked(kind: SourceKind, path: Path, selector: str) -> ImageSource:
    if kind is SourceKind.OCI and not path.is_dir():
        raise NotAnImage(f"{path} is not a folder", hint=f"for a tar file write oci-archive:{path}")
    if kind is SourceKind.OCI_ARCHIVE and path.is_dir():
        raise NotAnImage(f"{path} is a folder", hint=f"for a layout folder write oci:{path}")
    seen = _look(path)
    if (seen is SourceKind.DOCKER_ARCHIVE) != (kind is SourceKind.DOCKER_ARCHIVE) and not _is_both(path):
        raise NotAnImage(f"{path} is not {kind} but {seen}", hint=f"write {seen}:{path}")
    return ImageSource(kind=kind, location=str(path.absolute()), selector=selector)


def _look(path: Path) -> SourceKind:
    """Tell what a path holds.

    A folder or archive with ``index.json`` is read as an OCI layout even when it also has Docker's ``manifest.json``:
    newer Docker versions write both, and only the index has the original digests.
    """
    try:
        names = _names_of_folder(path) if path.is_dir() else names_in_tar(path)
    except PermissionError as error:
        raise NoPermission(f"{path} may not be read", hint="run as a user who may") from error
    if "index.json" in names:
        return SourceKind.OCI if path.is_dir() else SourceKind.OCI_ARCHIVE
    if "manifest.json" in names:
        return SourceKind.DOCKER_ARCHIVE
    raise NotAnImage(
        f"{path} is not an image",
        why="it has neither index.json with blobs (OCI layout) nor manifest.json (docker save)",
        hint="make one of files with `metalmark image pack`" if path.is_dir() else "",
    )


def _is_both(path: Path) -> bool:
    names = _names_of_folder(path) if path.is_dir() else names_in_tar(path)
    return "index.json" in names and "manifest.json" in names


def _names_of_folder(path: Path) -> set[str]:
    return {name for name in ("index.json", "oci-layout", "manifest.json", "blobs") if (path / name).exists()}
