"""Guest to host output in MB/s, and this process's memory meanwhile, with output forwarded live or held to the end.

The sink is the run's own: what is kept is bounded, what comes beyond is read and dropped. "host pipe" is the floor: the
same command on this host, read through a pipe.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import anyio
from small_box import arguments, box_of, command, usable_drivers

from metalmark.model import MIB
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


def host_pipe(size: int) -> None:
    began_s = monotonic_s()
    with subprocess.Popen(
        ["dd", "if=/dev/zero", "bs=65536", f"count={size // 65536}", "status=none"], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        while child.stdout.read(262144):
            pass
    print(f"host pipe                    {size / 1e6 / (monotonic_s() - began_s):8.1f} MB/s")


async def main() -> None:
    options = arguments(__doc__ or "")
    size = (16 if options.quick else 1024) * MIB
    host_pipe(size)
    for driver in await usable_drivers(options.sandbox):
        for live in (True, False):
            # Held output is kept in the guest's memory, so that the bound lies below that.
            bound = size if live else 64 * MIB
            async with box_of(driver) as box:
                reset_peak()
                before = resident_mib()
                began_s = monotonic_s()
                exited, taken, _ = await command(
                    box,
                    "/bin/dd",
                    "if=/dev/zero",
                    "bs=65536",
                    f"count={size // 65536}",
                    stream_bytes=bound,
                    hold=not live,
                )
                elapsed_s = monotonic_s() - began_s
            print(
                f"{driver.name} live={'on' if live else 'off':<4} {exited.stdout_bytes / 1e6 / elapsed_s:8.1f} MB/s "
                f"written {exited.stdout_bytes / MIB:.0f} MiB, came {taken / MIB:.0f} MiB, "
                f"memory +{resident_mib() - before:.1f} MiB"
            )


if __name__ == "__main__":
    anyio.run(main)
