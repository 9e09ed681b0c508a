from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import DigestMismatch, InputError
from metalmark.runner.bundle import (
    Bundle,
    BundleFile,
    Kind,
    describe_file,
    read_bundle,
    stage_files,
    verify_bundle,
    write_bundle,
)


def collect(folder: Path, **changes: Any) -> Bundle:
    (folder / "packages").mkdir()
    (folder / "kernel").mkdir()
    (folder / "packages/runc_1_amd64.deb").write_bytes(b"runc")
    (folder / "kernel/linux-image-6.1_amd64.deb").write_bytes(b"kernel")
    files = (
        describe_file(folder, folder / "packages/runc_1_amd64.deb", Kind.PACKAGE),
        describe_file(folder, folder / "kernel/linux-image-6.1_amd64.deb", Kind.KERNEL),
    )
    given: dict[str, Any] = {
        "distribution": "debian",
        "version": "12",
        "architecture": "amd64",
        "packages": ("runc",),
        "files": files,
    }
    return Bundle(**{**given, **changes})


def test_what_is_written_is_read_and_verified(tmp_path: Path) -> None:
    bundle = collect(tmp_path)
    digest = write_bundle(tmp_path, bundle)
    assert digest == hashlib.sha256((tmp_path / "manifest.json").read_bytes()).hexdigest()
    found = read_bundle(tmp_path, manifest_sha256=digest)
    assert found == bundle
    verify_bundle(tmp_path, found)
    assert found.paths(tmp_path, Kind.KERNEL) == (tmp_path / "kernel/linux-image-6.1_amd64.deb",)
    assert found.paths(tmp_path, Kind.FIRECRACKER) == ()


def test_another_manifest_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path, collect(tmp_path))
    with pytest.raises(DigestMismatch, match="expected was"):
        read_bundle(tmp_path, manifest_sha256="0" * 64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.write_bytes(b"cunr"), "SHA-256"),
        (lambda path: path.write_bytes(b"runc!"), "bytes"),
        (lambda path: path.unlink(), "missing"),
        (lambda path: (path.rename(path.with_name("x")), path.symlink_to(path.with_name("x"))), "no ordinary file"),
        (lambda path: (path.unlink(), path.mkdir()), "no ordinary file"),
    ],
)
def test_a_file_that_was_tampered_with_is_refused(tmp_path: Path, change: Any, said: str) -> None:
    bundle = collect(tmp_path)
    change(tmp_path / "packages/runc_1_amd64.deb")
    with pytest.raises(DigestMismatch, match=said) as caught:
        verify_bundle(tmp_path, bundle)
    assert "runc_1_amd64.deb" in str(caught.value)


def test_what_is_used_is_a_copy_that_was_checked(tmp_path: Path) -> None:
    folder, private = tmp_path / "bundle", tmp_path / "private"
    folder.mkdir()
    private.mkdir()
    bundle = collect(folder)
    assert stage_files(folder, bundle, Kind.KERNEL, private) == (private / "linux-image-6.1_amd64.deb",)
    assert stage_files(folder, bundle, Kind.KERNEL_MODULES, private) == ()
    (folder / "kernel/linux-image-6.1_amd64.deb").write_bytes(b"KERNEL")
    with pytest.raises(DigestMismatch, match="bundle/kernel"):
        stage_files(folder, bundle, Kind.KERNEL, private)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", "."])
def test_files_outside_of_the_folder_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not a path inside"):
        BundleFile(kind=Kind.PACKAGE, path=path, size_bytes=0, sha256="0" * 64)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"packages": ["-o=Dpkg::Pre-Invoke=evil"]},
        {"packages": ["runc; rm"]},
        {"files": [{"kind": "package", "path": "x", "size_bytes": "1", "sha256": "0" * 64}]},
        {"files": [{"kind": "package", "path": "x", "size_bytes": -1, "sha256": "0" * 64}]},
        {"files": [{"kind": "package", "path": "x", "size_bytes": 1, "sha256": "0" * 64 + "\n"}]},
        {"files": [{"kind": "script", "path": "x", "size_bytes": 1, "sha256": "0" * 64}]},
        {"files": [{"kind": "package", "path": "x", "size_bytes": 1, "sha256": "0" * 64}] * 2},
        {"unknown": 1},
        {"distribution": None},
    ],
)
def test_a_malformed_manifest_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    write_bundle(tmp_path, collect(tmp_path))
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match="malformed") as caught:
        read_bundle(tmp_path)
    assert caught.value.field == "--from"


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no readable manifest") as caught:
        read_bundle(tmp_path)
    assert "--download" in caught.value.hint


@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_manifest_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(InputError):
        read_bundle(folder)
