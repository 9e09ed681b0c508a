"""The update artifact: one tar with every wheel of a version of Metalmark, and what it is made of.

The first member is ``artifact.json``, an `UpdateManifest`; the others are the wheels that it lists, in its order. There
are wheels for every Python and architecture in ``targets``. ``requirements`` are lines of a requirements file with
hashes, ``installer`` is the wheel of the pip that installs them: nothing else is needed on the machine but Python.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from typing import IO, Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from metalmark.model import ProtocolError
from metalmark.wire.channel import Checksum
from metalmark.wire.scalars import Body

MANIFEST_NAME = "artifact.json"
MANIFEST_MAX_BYTES = 4 * 1024 * 1024
_PIECE_BYTES = 256 * 1024

VersionText = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}$")]
"""A version that can be a file's name."""
WheelName = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z._+-]{0,250}\.whl$")]


class UpdateTarget(Body):
    """What an artifact can be installed on."""

    python: Annotated[str, Field(pattern=r"^3\.[0-9]{1,3}$")]
    architecture: Literal["x86_64", "aarch64"]


class UpdateWheel(Body):
    """A file of an artifact."""

    file: WheelName
    sha256: Checksum
    size_bytes: Annotated[int, Field(strict=True, ge=1, le=2**40)]


class UpdateManifest(Body):
    """What is in an artifact."""

    format: Literal[1] = 1
    version: VersionText
    targets: Annotated[tuple[UpdateTarget, ...], Field(min_length=1, max_length=64)]
    installer: WheelName
    requirements: Annotated[tuple[str, ...], Field(min_length=1, max_length=4096)]
    wheels: Annotated[tuple[UpdateWheel, ...], Field(min_length=1, max_length=4096)]

    @model_validator(mode="after")
    def _whole(self) -> UpdateManifest:
        names = [wheel.file for wheel in self.wheels]
        if len(set(names)) != len(names) or self.installer not in names:
            raise ValueError("the list of wheels is not whole")
        return self

    def suits(self, *, python: str, architecture: str) -> bool:
        """Whether it can be installed with a Python (``3.11``) on an architecture (``x86_64``)."""
        return any((target.python, target.architecture) == (python, architecture) for target in self.targets)


class UpdateArtifact:
    """An artifact that is read from its beginning, one member after the other.

    Args:
        stream: The tar. It need not be seekable.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        try:
            self._tar = tarfile.open(fileobj=stream, mode="r|")  # noqa: SIM115  # the caller's stream is all it holds
            first = self._tar.next()
            if first is None or first.name != MANIFEST_NAME or not first.isreg() or first.size > MANIFEST_MAX_BYTES:
                raise _no_artifact("its first member is no artifact.json")
            content = self._tar.extractfile(first)
            assert content is not None
            self.manifest = UpdateManifest.model_validate_json(content.read())
        except (tarfile.TarError, ValidationError, EOFError, OSError) as error:
            raise _no_artifact(type(error).__name__) from None

    def wheels(self) -> Iterator[tuple[UpdateWheel, Iterator[bytes]]]:
        """Yield each wheel and its bytes, to be read before the next one; checksums are checked at their end.

        Raises:
            ProtocolError: A member is missing, one too many, or not what the manifest says.
        """
        try:
            for wheel in self.manifest.wheels:
                member = self._tar.next()
                if member is None or member.name != f"wheels/{wheel.file}" or not member.isreg():
                    raise _no_artifact(f"{wheel.file} is not where it should be")
                if member.size != wheel.size_bytes:
                    raise _no_artifact(f"{wheel.file} has another size")
                content = self._tar.extractfile(member)
                assert content is not None
                yield wheel, _checked(content, wheel)
            if self._tar.next() is not None:
                raise _no_artifact("there is more in it than it lists")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise _no_artifact(type(error).__name__) from None


def _checked(content: IO[bytes], wheel: UpdateWheel) -> Iterator[bytes]:
    digest = hashlib.sha256()
    try:
        while piece := content.read(_PIECE_BYTES):
            digest.update(piece)
            yield piece
    except tarfile.TarError as error:
        raise _no_artifact(f"{wheel.file} is cut off ({type(error).__name__})") from None
    if digest.hexdigest() != wheel.sha256:
        raise _no_artifact(f"{wheel.file} has another checksum")


def _no_artifact(why: str) -> ProtocolError:
    return ProtocolError("this is no update artifact of Metalmark", why=why, hint="scripts/build-update makes one")


def write_artifact(target: IO[bytes], manifest: UpdateManifest, contents: Mapping[str, IO[bytes]]) -> None:
    """Write an artifact. The same wheels give the same bytes.

    Args:
        target: Where to.
        manifest: What is in it.
        contents: Every wheel of the manifest, by file name.
    """
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        head = json.dumps(manifest.model_dump(), indent=1, sort_keys=True).encode() + b"\n"
        tar.addfile(_entry(MANIFEST_NAME, len(head)), io.BytesIO(head))
        for wheel in manifest.wheels:
            tar.addfile(_entry(f"wheels/{wheel.file}", wheel.size_bytes), contents[wheel.file])


def _entry(name: str, size_bytes: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size_bytes, 0o644
    return entry
