"""The update artifact: what is written can be read, and nothing else is taken for one."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metalmark.model import ProtocolError
from metalmark.wire import UpdateArtifact, UpdateManifest, UpdateTarget, UpdateWheel, write_artifact

CONTENTS = {"pip-1-py3-none-any.whl": b"pip" * 1000, "metalmark-2.0-py3-none-any.whl": b"metal"}


def manifest(contents: dict[str, bytes] = CONTENTS) -> UpdateManifest:
    return UpdateManifest(
        version="2.0",
        targets=(
            UpdateTarget(python="3.11", architecture="x86_64"),
            UpdateTarget(python="3.12", architecture="x86_64"),
        ),
        installer="pip-1-py3-none-any.whl",
        requirements=("metalmark==2.0",),
        wheels=tuple(
            UpdateWheel(file=name, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
            for name, data in contents.items()
        ),
    )


def artifact(found: UpdateManifest | None = None, contents: dict[str, bytes] = CONTENTS) -> bytes:
    target = io.BytesIO()
    write_artifact(target, found or manifest(), {name: io.BytesIO(data) for name, data in contents.items()})
    return target.getvalue()


def read(data: bytes) -> tuple[UpdateManifest, dict[str, bytes]]:
    found = UpdateArtifact(io.BytesIO(data))
    return found.manifest, {wheel.file: b"".join(pieces) for wheel, pieces in found.wheels()}


def test_what_is_written_is_read() -> None:
    assert read(artifact()) == (manifest(), CONTENTS)


def test_the_same_wheels_give_the_same_bytes() -> None:
    assert artifact() == artifact()


def test_it_says_what_it_suits() -> None:
    found = manifest()
    assert found.suits(python="3.12", architecture="x86_64")
    assert not found.suits(python="3.13", architecture="x86_64")
    assert not found.suits(python="3.12", architecture="aarch64")


def test_a_wheel_of_another_content_is_refused() -> None:
    changed = {**CONTENTS, "metalmark-2.0-py3-none-any.whl": b"evil!"}
    with pytest.raises(ProtocolError, match="checksum"):
        read(artifact(manifest(), changed))


def test_more_than_is_listed_is_refused() -> None:
    data = io.BytesIO(artifact())
    with tarfile.open(fileobj=data, mode="a") as tar:
        tar.addfile(tarfile.TarInfo("wheels/more.whl"))
    with pytest.raises(ProtocolError, match="lists"):
        read(data.getvalue())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_only_plain_files_are_taken(kind: bytes) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        entry = tarfile.TarInfo("artifact.json")
        entry.type, entry.linkname = kind, "/etc/passwd"
        tar.addfile(entry)
    with pytest.raises(ProtocolError):
        read(data.getvalue())


@pytest.mark.parametrize("name", ["../evil.whl", "/evil.whl", ".whl", "a b.whl", "evil.sh", "a\n.whl"])
def test_a_wheel_cannot_have_a_name_that_leads_elsewhere(name: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        UpdateWheel(file=name, sha256="0" * 64, size_bytes=1)


@pytest.mark.parametrize("version", ["", "..", "../x", "a/b", "-v", "1 2"])
def test_a_version_can_be_the_name_of_a_folder(version: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        UpdateManifest(
            version=version,
            targets=manifest().targets,
            installer="pip-1-py3-none-any.whl",
            requirements=("x",),
            wheels=manifest().wheels,
        )


@settings(deadline=None)
@given(cut=st.integers(min_value=0, max_value=len(artifact())), junk=st.binary(max_size=64))
def test_whatever_is_damaged_is_an_error_of_ours(cut: int, junk: bytes) -> None:
    data = artifact()
    damaged = data[:cut] + junk + data[cut + len(junk) :]
    try:
        found = read(damaged)
    except ProtocolError:
        return
    assert found[1] == CONTENTS


@pytest.mark.parametrize("missing", [1, 4, 5, 517, 2000])
def test_what_is_cut_off_is_an_error_of_ours(missing: int) -> None:
    data = artifact()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        last = tar.getmembers()[-1]
    with pytest.raises(ProtocolError):
        read(data[: last.offset_data + last.size - missing])
