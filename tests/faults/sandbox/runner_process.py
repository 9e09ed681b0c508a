"""A program that runs one box and can be killed at any of its phases. Says on stdout how far it has got.

Arguments: sandbox, home, image. It waits at the end of each phase for a line on stdin.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio

from metalmark.model import MIB, Resources, RootfsMode, SandboxName
from metalmark.sandbox import BoxSpec, DriverSettings, make_driver
from metalmark.sandbox.leftovers import BoxRecord
from metalmark.system import folders
from metalmark.wire import Exec


def _reached(phase: str) -> None:
    os.write(1, f"{phase}\n".encode())
    os.read(0, 1)


async def _main(sandbox: SandboxName, home: Path, image: Path, network: str) -> None:
    places = folders({"METALMARK_HOME": str(home)})
    driver = make_driver(sandbox, DriverSettings(folders=places, allow_none=True))
    with BoxRecord.open(places, f"f{os.getppid()}-{os.getpid()}") as record:
        _reached("record")
        spec = BoxSpec(
            name=record.name,
            root=image,
            rootfs=RootfsMode.OVERLAY,
            workspace=record.workspace,
            disk_folder=record.disk,
            resources=Resources(memory_bytes=64 * MIB, disk_bytes=32 * MIB, pids=64),
            cpus=(0,),
            network=bool(network),
        )
        async with driver.create(spec) as box:
            _reached("create")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_kill_while_starting)
                await box.start()
            _reached("start")
            script = "trap '' TERM INT; setsid sleep 4242 & while :; do sleep 4241; done"
            await box.exec(Exec(argv=("/bin/sh", "-c", script), stream_bytes=64), lambda _stream, _data: None)
            await anyio.sleep(0.1)
            _reached("exec")
            await box.stop()
            _reached("stop")
    _reached("end")


async def _kill_while_starting() -> None:
    # Asked for by environment: after so many milliseconds of the start, wherever it is then.
    if delay := os.environ.get("DIE_AFTER_MS"):
        await anyio.sleep(int(delay) / 1000)
        os.kill(os.getpid(), 9)


if __name__ == "__main__":
    anyio.run(_main, SandboxName(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:5] or [""])
