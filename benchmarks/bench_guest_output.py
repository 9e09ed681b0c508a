"""Guest to host output in MB/s, and this process's memory meanwhile, with output forwarded live or held to the end.

The sink is the run's own: what is kept is bounded, what comes beyond is read and dropped. "host pipe" is the floor: the
same command on this host, read through a pipe. Each with writes of 64 KiB and of 1 KiB, an eighth as many bytes.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import anyio
from small_box import arguments, box_of, command, usable_drivers

from metalmark.model import MIB
from metalmark.sandbox import Driver
from metalmark.system import monotonic_s


def resident_mib() -> float:
    """Return this process's peak resident memory since it was last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def reset_peak() -> None:
    """Start a new peak."""
    Path("/proc/self/clear_refs").write_text("5")


def copy_zeros(size: int, block: int) -> list[str]:
    """Return the arguments of a dd that prints some bytes in writes of one size."""
    return ["if=/dev/zero", f"bs={block}", f"count={size // block}"]


def host_pipe(size: int, block: int) -> None:
    began_s = monotonic_s()
    with subprocess.Popen(["dd", *copy_zeros(size, block), "status=none"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        while child.stdout.read(262144):
            pass
    print(f"host pipe {block:>6} B {'':<15} {size / 1e6 / (monotonic_s() - began_s):8.1f} MB/s")


async def main() -> None:
    options = arguments(__doc__ or "")
    size = (16 if options.quick else 1024) * MIB
    for block, of in ((64 * 1024, size), (1024, size // 8)):
        host_pipe(of, block)
        for driver in await usable_drivers(options.sandbox):
            for live in (True, False):
                await box_output(driver, of, block, live=live)


async def box_output(driver: Driver, size: int, block: int, *, live: bool) -> None:
    """Print the same from a box."""
    # Held output is kept in the guest's memory, so that the bound lies below that.
    bound = size if live else min(size, 64 * MIB)
    async with box_of(driver) as box:
        reset_peak()
        before = resident_mib()
        began_s = monotonic_s()
        exited, taken, _ = await command(box, "/bin/dd", *copy_zeros(size, block), stream_bytes=bound, hold=not live)
        elapsed_s = monotonic_s() - began_s
    print(
        f"{driver.name:<9} {block:>6} B live={'on' if live else 'off':<4} "
        f"{exited.stdout_bytes / 1e6 / elapsed_s:8.1f} MB/s "
        f"written {exited.stdout_bytes / MIB:.0f} MiB, came {taken / MIB:.0f} MiB, "
        f"memory +{resident_mib() - before:.1f} MiB"
    )


if __name__ == "__main__":
    anyio.run(main)
