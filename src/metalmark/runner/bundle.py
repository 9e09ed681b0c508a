"""A folder that holds everything for a machine without a network: package files, a kernel, Firecracker, a manifest.

``manifest.json`` names every file with its size and SHA-256. All of them are checked before anything is installed. The
manifest itself is not signed: its own SHA-256, shown when the folder is made, is what to compare with when the folder
travelled by a way that is not trusted.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from metalmark.model import DigestMismatch, InputError
from metalmark.system import published

MANIFEST = "manifest.json"
_AGAIN = "copy the folder again, or make it again with `metalmark host setup --download DIR`"


class Kind(StrEnum):
    """What a file of a bundle is."""

    PACKAGE = "package"
    """Installed with apt, if it is not already."""
    KERNEL = "kernel"
    """``linux-image-…deb``: unpacked, never installed."""
    KERNEL_MODULES = "kernel-modules"
    """``linux-modules-…deb`` to the kernel, where the distribution ships them apart."""
    FIRECRACKER = "firecracker"
    """Firecracker's release archive."""


def _inside(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\n" in path:
        raise ValueError("this is not a path inside of the folder")
    return path


# They become arguments of apt-get, where a leading dash would be an option.
_PackageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]


class BundleFile(BaseModel):
    """One file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Kind
    path: Annotated[str, AfterValidator(_inside)]
    """Relative to the folder, with ``/``."""
    size_bytes: Annotated[int, Field(ge=0, strict=True)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Bundle(BaseModel):
    """What a folder holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    distribution: str
    """``debian`` or ``ubuntu``: the ID of os-release."""
    version: str
    """VERSION_ID of os-release: packages are for exactly that release."""
    architecture: str
    """Debian's word: ``amd64``, ``arm64``."""
    packages: tuple[_PackageName, ...]
    """The names to install; the files of kind package hold these and what they need."""
    files: tuple[BundleFile, ...]

    @model_validator(mode="after")
    def _names_files_once(self) -> Self:
        if len({file.path for file in self.files}) != len(self.files):
            raise ValueError("a file is named twice")
        return self

    def paths(self, folder: Path, kind: Kind) -> tuple[Path, ...]:
        """Return where the files of one kind are."""
        return tuple(folder / file.path for file in self.files if file.kind is kind)


def describe_file(folder: Path, path: Path, kind: Kind) -> BundleFile:
    """Return the entry for a file of the folder, read from what is on the disk."""
    size_bytes, sha256 = _measure(path)
    return BundleFile(kind=kind, path=path.relative_to(folder).as_posix(), size_bytes=size_bytes, sha256=sha256)


def write_bundle(folder: Path, bundle: Bundle) -> str:
    """Write the manifest, last of all files, and return its SHA-256."""
    content = bundle.model_dump_json(indent=1).encode()
    with published(folder / MANIFEST, mode=0o644) as stream:
        stream.write(content)
    return hashlib.sha256(content).hexdigest()


def read_bundle(folder: Path, *, field: str = "--from", manifest_sha256: str | None = None) -> Bundle:
    """Read a folder's manifest, without looking at the files.

    Args:
        folder: The folder.
        field: The flag that named it, for errors.
        manifest_sha256: What the manifest must hash to; None: anything.

    Raises:
        InputError: Not such a folder, or its manifest is malformed, or names files outside of it.
        DigestMismatch: The manifest is another one.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
    except OSError as error:
        why = f"it has no readable {MANIFEST}"
        raise InputError(field, str(folder), why, hint="make it with `metalmark host setup --download DIR`") from error
    found = hashlib.sha256(content).hexdigest()
    if manifest_sha256 is not None and found != manifest_sha256:
        raise DigestMismatch(f"{folder / MANIFEST} has the SHA-256 {found}", why=f"expected was {manifest_sha256}")
    try:
        return Bundle.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        why = f"its {MANIFEST} is malformed: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise InputError(field, str(folder), why, hint="make the folder again") from error


def verify_bundle(folder: Path, bundle: Bundle) -> None:
    """Check every file's kind, size and digest.

    Raises:
        DigestMismatch: A file is missing, is no ordinary file, or is another than the one that was collected.
    """
    for file in bundle.files:
        path = folder / file.path
        if path.is_symlink() or not path.is_file():
            raise DigestMismatch(f"{path} is missing, or is no ordinary file", hint=_AGAIN)
        _check(path, file, path)


def _check(path: Path, file: BundleFile, shown: Path) -> None:
    size_bytes, sha256 = _measure(path)
    if size_bytes != file.size_bytes:
        why = f"the manifest says {file.size_bytes}: nothing of it was installed"
        raise DigestMismatch(f"{shown} has {size_bytes} bytes", why=why, hint=_AGAIN)
    if sha256 != file.sha256:
        why = f"the manifest says {file.sha256}: nothing of it was installed"
        raise DigestMismatch(f"{shown} has the SHA-256 {sha256}", why=why, hint=_AGAIN)


def stage_files(folder: Path, bundle: Bundle, kind: Kind, target: Path) -> tuple[Path, ...]:
    """Copy the files of one kind to a private folder, check the copies, and return them.

    What is used is then what was checked, whoever can write to the folder that it came from.

    Raises:
        DigestMismatch: A file is another than the one that was collected.
    """
    staged = []
    for file in bundle.files:
        if file.kind is kind:
            copy = target / Path(file.path).name
            shutil.copyfile(folder / file.path, copy)
            _check(copy, file, folder / file.path)
            staged.append(copy)
    return tuple(staged)


def stale_files(folder: Path, keep: Iterable[Path]) -> tuple[Path, ...]:
    """Return package files of an earlier collection that are not wanted any more."""
    kept = {path.name for path in keep}
    return tuple(path for path in sorted(folder.glob("*.deb")) if path.name not in kept)


def _measure(path: Path) -> tuple[int, str]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return stream.tell(), digest
