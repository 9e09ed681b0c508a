"""Virtual machines for tests: what they need, and a started one of small size."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.machine.sandbox.host_boxes import image

from metalmark.model import MIB, BadBoot, Resources, RootfsMode
from metalmark.sandbox import BoxSpec, DriverSettings
from metalmark.sandbox.leftovers import BoxRecord
from metalmark.sandbox.qemu import QemuBox, QemuDriver
from metalmark.system import folders
from metalmark.testing.busybox_root import BUSYBOX


def need_qemu() -> None:
    """Skip when this machine cannot boot a virtual machine."""
    for tool in ("qemu-system-x86_64", "mksquashfs", "mke2fs"):
        if shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
            pytest.skip(f"{tool} is not installed")
    if os.uname().machine != "x86_64":
        pytest.skip("the busybox image is this machine's, and the tests boot x86_64")
    if not BUSYBOX.exists():
        pytest.skip("busybox-static is not installed")


_BOOTS = 3


@dataclass(frozen=True)
class Started:
    """A box, and what it was made from."""

    box: QemuBox
    record: BoxRecord
    spec: BoxSpec

    @property
    def vmm_pid(self) -> int:
        """Process id of QEMU."""
        process = self.box._process
        assert process is not None
        assert process.child is not None
        return process.child.pid


def qemu_driver(home: Path, **settings: object) -> QemuDriver:
    """A driver with folders of its own."""
    return QemuDriver(DriverSettings(folders=folders({"METALMARK_HOME": str(home)}), **settings))  # type: ignore[arg-type]


@asynccontextmanager
async def made(driver: QemuDriver, **changes: object) -> AsyncIterator[Started]:
    """A box of small size that has not started; ``resources`` changes single limits, ``disk_folder`` its place."""
    resources = {"vcpus": 1, "memory_bytes": 192 * MIB, "disk_bytes": 32 * MIB, "pids": 64}
    resources.update(changes.pop("resources", {}))  # type: ignore[call-overload]
    await driver.kvm()
    with BoxRecord.open(driver.settings.folders, f"t{os.getpid()}-{os.urandom(3).hex()}") as record:
        root = await image("squashfs")
        if changes.get("rootfs") is RootfsMode.EXT4:
            root = record.disk / "root.ext4"
            shutil.copy(await image("ext4"), root)
        values: dict[str, object] = {"rootfs": RootfsMode.OVERLAY, "disk_folder": record.disk, "root": root, **changes}
        spec = BoxSpec(
            name=record.name,
            workspace=record.workspace,
            resources=Resources(**resources),
            **values,  # type: ignore[arg-type]
        )
        async with driver.create(spec) as box:
            assert isinstance(box, QemuBox)
            yield Started(box=box, record=record, spec=spec)


@asynccontextmanager
async def started(driver: QemuDriver, **changes: object) -> AsyncIterator[Started]:
    """The same, started: as by a runner again where a guest came up badly, which a busy host does to it."""
    for left in reversed(range(_BOOTS)):
        async with made(driver, **changes) as one:
            try:
                await one.box.start()
            except BadBoot:
                if not left:
                    raise
                continue
            yield one
            return
