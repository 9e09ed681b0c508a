"""File work in a box on `overlay` and `ext4`, beside plain ext4 on this host (a loop-mounted file, root only).

small: files of 4 KiB written, read back and removed; rewrite: a large file written, then overwritten in place; mmap: a
file changed through a mapping and synced; fsync: 4 KiB appended and synced, again and again. The program is one static
binary, the same in all places; times are its own clock's. Under emulation the ratio tells nothing of this machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import anyio
from small_box import arguments, box_of, command, usable_drivers

from metalmark.model import MIB, RootfsMode, StableError

SOURCE = Path(__file__).parent / "disk_work.c"


def build(folder: Path) -> Path:
    compiler = shutil.which("musl-gcc") or "gcc"
    program = folder / "disk_work"
    subprocess.run([compiler, "-O2", "-static", "-o", str(program), str(SOURCE)], check=True)
    return program


def host(program: Path, folder: Path, counts: list[str]) -> None:
    """The peer: the same on a plain ext4 of this host."""
    if os.geteuid() != 0:
        print("# host ext4 is left out: mounting needs root")
        return
    image, place = folder / "host.ext4", folder / "host"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(512 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    try:
        done = subprocess.run([str(program), str(place), *counts], check=True, capture_output=True, text=True)
        print(f"{'host ext4':<24} {done.stdout.strip()}")
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def main() -> None:
    options = arguments(__doc__ or "")
    counts = ["50", "8", "10"] if options.quick else ["1000", "128", "200"]
    with tempfile.TemporaryDirectory(dir=os.environ.get("METALMARK_HOME")) as name:
        folder = Path(name)
        program = build(folder)
        archive = folder / "program.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(program, program.name)
        host(program, folder, counts)
        for driver in await usable_drivers(options.sandbox):
            for rootfs in RootfsMode:
                async with box_of(driver, rootfs=rootfs, disk_bytes=512 * MIB) as box:
                    await box.copy_in("/root", archive)
                    exited, _, said = await command(box, "/root/disk_work", "/root", *counts)
                    if exited.code != 0:
                        raise StableError(f"disk_work ended with {exited.code}", why=said)
                    print(f"{f'{driver.name} {rootfs}':<24} {said.strip()}")


if __name__ == "__main__":
    anyio.run(main)
