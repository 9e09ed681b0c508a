"""Boxes of the sandboxes container and none for tests: settings, specs and a command's result."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from metalmark.model import MIB, Resources, RootfsMode, SandboxName
from metalmark.sandbox import Box, BoxSpec, Driver, DriverSettings, Stream, make_driver
from metalmark.sandbox.leftovers import BoxRecord
from metalmark.system import folders
from metalmark.testing.busybox_root import BUSYBOX, busybox_ext4, busybox_squashfs
from metalmark.testing.leftover_listing import Listing, list_leftovers, nothing_left
from metalmark.wire import Exec, Exited


def need_host_boxes() -> None:
    """Skip when this machine cannot run the tests."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts and cgroups")
    for tool in ("mksquashfs", "mke2fs", "nsenter"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if not BUSYBOX.exists():
        pytest.skip("busybox-static is not installed")


_IMAGES: dict[str, Path] = {}


async def image(kind: str) -> Path:
    """The busybox image, made once a session."""
    if kind not in _IMAGES:
        folder = Path(tempfile.mkdtemp(prefix="metalmark-test-image-"))
        target = folder / f"busybox.{kind}"
        if kind == "squashfs":
            await busybox_squashfs(target, folder)
        else:
            await busybox_ext4(target, folder, size_bytes=64 * MIB)
        _IMAGES[kind] = target
    return _IMAGES[kind]


def remove_images() -> None:
    """Remove what `image` has made."""
    for path in _IMAGES.values():
        shutil.rmtree(path.parent, ignore_errors=True)
    _IMAGES.clear()


@dataclass
class Result:
    """What a command did."""

    exited: Exited
    out: dict[Stream, bytes] = field(default_factory=dict)

    @property
    def stdout(self) -> str:
        return self.out.get(Stream.STDOUT, b"").decode()

    @property
    def stderr(self) -> str:
        return self.out.get(Stream.STDERR, b"").decode()


def driver_of(name: SandboxName, home: Path, **settings: object) -> Driver:
    """A driver with folders of its own."""
    return make_driver(
        name,
        DriverSettings(folders=folders({"METALMARK_HOME": str(home)}), allow_none=True, **settings),  # type: ignore[arg-type]
    )


@asynccontextmanager
async def started(driver: Driver, home: Path, **changes: object) -> AsyncIterator[Box]:
    """A started box of small size; a ``resources`` mapping changes single limits."""
    resources = {"vcpus": 1, "memory_bytes": 64 * MIB, "disk_bytes": 32 * MIB, "pids": 64}
    resources.update(changes.pop("resources", {}))  # type: ignore[call-overload]
    with BoxRecord.open(folders({"METALMARK_HOME": str(home)}), f"t{os.getpid()}-{os.urandom(3).hex()}") as record:
        root = await image("squashfs")
        if changes.get("rootfs") is RootfsMode.EXT4:
            root = record.disk / "root.ext4"
            shutil.copy(await image("ext4"), root)
        values: dict[str, object] = {"rootfs": RootfsMode.OVERLAY, "cpus": (0,), **changes}
        spec = BoxSpec(
            name=record.name,
            root=root,
            workspace=record.workspace,
            disk_folder=record.disk,
            resources=Resources(**resources),
            **values,  # type: ignore[arg-type]
        )
        async with driver.create(spec) as box:
            await box.start()
            yield box


async def shell(box: Box, script: str, *, user: str = "", workdir: str = "/", limit_s: float = 20.0) -> Result:
    """Run a shell script in a box to its end."""
    out: dict[Stream, bytes] = {}

    def take(stream: Stream, data: bytes) -> None:
        out[stream] = out.get(stream, b"") + data

    request = Exec(
        argv=("/bin/sh", "-c", script),
        env=("PATH=/bin",),
        user=user,
        workdir=workdir,
        stream_bytes=1 * MIB,
        grace_ms=200,
    )
    with anyio.fail_after(limit_s):
        execution = await box.exec(request, take)
        return Result(exited=await execution.wait(), out=out)


_PID = os.getpid()
_PREFIXES = (f"t{_PID}-", f"f{_PID}-", f"probe-{_PID}", f"swept-{_PID}", f"twice-{_PID}")
"""How the names of this process's boxes begin: other tests may run on this machine meanwhile."""


def list_here(*places: Path) -> Listing:
    """What of these tests is on the machine."""
    return list_leftovers(*places, box_prefixes=_PREFIXES)


async def left_here(before: Listing, *places: Path) -> dict[str, list[str]]:
    """What is there beyond an earlier listing, after a while."""
    return await nothing_left(before, *places, box_prefixes=_PREFIXES)
