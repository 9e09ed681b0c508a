"""Boxes for the benchmarks: a busybox root, a driver, a started box, medians."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from metalmark.model import MIB, Resources, RootfsMode, SandboxName
from metalmark.sandbox import Box, BoxRecord, BoxSpec, Driver, DriverSettings, Stream, make_driver
from metalmark.testing.busybox_root import busybox_ext4, busybox_squashfs
from metalmark.wire import Exec, Exited


def arguments(description: str, *, sandboxes: bool = True) -> argparse.Namespace:
    """Read the options that all of these benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a size of seconds")
    if sandboxes:
        parser.add_argument("--sandbox", action="append", choices=[str(name) for name in SandboxName])
    return parser.parse_args()


async def usable_drivers(wanted: Sequence[str] | None) -> list[Driver]:
    """Return the drivers that work here, of those asked for (qemu and container when none is)."""
    settings = DriverSettings(allow_none=True)
    found = []
    for name in wanted or (SandboxName.QEMU, SandboxName.CONTAINER):
        driver = make_driver(SandboxName(name), settings)
        availability = await driver.probe()
        if availability.usable:
            found.append(driver)
            print(f"# {name}: {availability.reason}")
        else:
            print(f"# {name} is left out: {availability.reason}")
    return found


@asynccontextmanager
async def box_of(
    driver: Driver, *, rootfs: RootfsMode = RootfsMode.OVERLAY, disk_bytes: int = 256 * MIB, start: bool = True
) -> AsyncIterator[Box]:
    """Make a box, started unless told otherwise."""
    settings = DriverSettings()
    with tempfile.TemporaryDirectory() as folder, BoxRecord.open(settings.folders, f"bench-{os.getpid()}") as record:
        if rootfs is RootfsMode.EXT4:
            root = await busybox_ext4(Path(folder) / "root.ext4", Path(folder), size_bytes=disk_bytes)
        else:
            root = await busybox_squashfs(Path(folder) / "root.sqfs", Path(folder))
        spec = BoxSpec(
            name=record.name,
            root=root,
            rootfs=rootfs,
            workspace=record.workspace,
            disk_folder=record.disk,
            resources=Resources(memory_bytes=512 * MIB, disk_bytes=disk_bytes),
        )
        async with driver.create(spec) as box:
            if start:
                await box.start()
            yield box


async def command(box: Box, *argv: str, stream_bytes: int = MIB, hold: bool = False) -> tuple[Exited, int, str]:
    """Run a command; return how it ended, how many bytes of output came, and the first of them."""
    size, first = 0, bytearray()

    def take(stream: Stream, data: bytes) -> None:
        nonlocal size
        size += len(data)
        if stream is Stream.STDOUT and len(first) < 65536:
            first.extend(data[:65536])

    request = Exec(argv=argv, env=("PATH=/bin",), stream_bytes=stream_bytes, hold=hold)
    exited = await (await box.exec(request, take)).wait()
    return exited, size, first.decode("utf-8", "replace")


def series(name: str, values_s: Sequence[float]) -> float:
    """Print a series in milliseconds with its median, and return the median in seconds."""
    median_s = statistics.median(values_s)
    shown = " ".join(f"{value * 1e3:.1f}" for value in values_s)
    print(f"{name:<28} median {median_s * 1e3:9.1f} ms   [{shown}]")
    return median_s
