"""How a corpus of odd layers is checked: merged in memory in pieces of several sizes, and built for real."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from metalmark.model import LayerRefused
from metalmark.oci import Bounds, Compression, OutOfOrder
from metalmark.oci.rootfs_build import build_rootfs
from metalmark.testing.layers import layer_blob
from metalmark.testing.trees import Tree, merge_in_one_pass, merge_in_two_passes

_MAX_S = 5.0
_MAX_BYTES = 64 * 1024 * 1024
Check = Callable[[Mapping[str, Any]], None]
"""Takes the fields of a `Case`."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Layers, bottom first, and what becomes of them."""

    layers: Sequence[bytes]
    tree: Mapping[bytes, Mapping[str, object]] | None = None
    """All names, each with those attributes of `metalmark.testing.trees.Seen` that matter. None: refused."""
    refused: str = ""
    """Part of the reason."""
    entry: str | None = None
    """The entry that is named."""
    layer: int = 0
    """The layer that is named."""
    bounds: Bounds = field(default_factory=Bounds)
    compression: Compression = Compression.NONE
    blobs: Sequence[bytes] = ()
    """Blobs as they are stored, where that is the point, instead of ``layers``."""


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Check one case."""

    def check_case(fields: Mapping[str, Any]) -> None:
        case = Case(**fields)
        started = time.monotonic()
        before = _resident_bytes("VmRSS")
        # Starts the high-water mark anew (proc_pid_clear_refs(5)).
        Path("/proc/self/clear_refs").write_text("5")
        if not case.blobs:
            _check_in_memory(case)
        _check_built(case, tmp_path)
        assert time.monotonic() - started < _MAX_S
        assert _resident_bytes("VmHWM") - before < _MAX_BYTES
        assert {path.name for path in tmp_path.iterdir()} <= {"blobs", "image.squashfs"}

    return check_case


def _resident_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def _check_in_memory(case: Case) -> None:
    try:
        tree = _merged(case)
    except LayerRefused as refused:
        _check_refusal(case, refused, f"layer-{case.layer}")
        return
    assert case.tree is not None, f"read as {sorted(tree)}"
    assert set(tree) == set(case.tree)
    for name, attributes in case.tree.items():
        for attribute, value in attributes.items():
            assert getattr(tree[name], attribute) == value, f"{attribute} of {name!r}"


def _merged(case: Case) -> Tree:
    try:
        tree = merge_in_one_pass(case.layers, bounds=case.bounds)
    except OutOfOrder:
        return merge_in_two_passes(case.layers, bounds=case.bounds)
    return tree


def _check_refusal(case: Case, refused: LayerRefused, layer: str) -> None:
    assert case.tree is None, str(refused)
    assert case.refused in str(refused)
    assert refused.layer == layer
    if case.entry is not None:
        assert refused.entry == case.entry


def _check_built(case: Case, folder: Path) -> None:
    place = folder / "blobs"
    place.mkdir()
    if case.blobs:
        blobs = [layer_blob(place, blob) for blob in case.blobs]
    else:
        blobs = [layer_blob(place, layer, compression=case.compression) for layer in case.layers]
    image = folder / "image.squashfs"
    image.touch()
    try:
        anyio.run(lambda: build_rootfs(blobs, image, bounds=case.bounds))
    except LayerRefused as refused:
        _check_refusal(case, refused, str(blobs[case.layer].digest))
        return
    assert case.tree is not None
    listing = subprocess.run(["unsquashfs", "-l", str(image)], capture_output=True, check=True).stdout
    if not any(b"\n" in name for name in case.tree):
        names = {line.removeprefix(b"squashfs-root/") for line in listing.splitlines() if b"/" in line}
        assert names == set(case.tree)
    assert image.stat().st_size < 128 * 1024 * 1024
