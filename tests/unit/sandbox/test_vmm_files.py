"""Files that go to a VMM as descriptors."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from metalmark.model import StableError
from metalmark.sandbox.vmm_files import VmmFiles


def test_disks_are_opened_as_they_are_used_and_closed_at_the_end(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(b"abc")
    with VmmFiles() as files:
        base, scratch = files.disk(image, read_only=True), files.disk(image, read_only=False)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(base, b"x")
        os.write(scratch, b"x")
        assert files.descriptors == [base, scratch]
        assert not os.get_inheritable(base)
    assert image.read_bytes() == b"xbc"
    for descriptor in (base, scratch):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_a_named_file_can_be_opened_again_by_a_stranger_that_has_the_descriptor(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(b"kernel")
    kernel.chmod(0o600)
    with VmmFiles() as files:
        assert files.named(kernel).read_bytes() == b"kernel"
    assert stat.S_IMODE(kernel.stat().st_mode) == 0o644


def test_a_log_starts_empty_and_private(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"old")
    with VmmFiles() as files:
        os.write(files.log(log), b"new")
    assert log.read_bytes() == b"new"
    with VmmFiles() as files:
        files.log(tmp_path / "second.log")
    assert stat.S_IMODE((tmp_path / "second.log").stat().st_mode) & 0o077 == 0


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with VmmFiles() as files, pytest.raises(StableError, match="gone"):
        files.disk(tmp_path / "gone", read_only=True)
