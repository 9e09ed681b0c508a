"""The rate of the host's time stamp counter, measured: emulated guests see that counter and must be told its rate."""

from __future__ import annotations

import ctypes
import json
import mmap
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from metalmark.model import SandboxUnavailable
from metalmark.system import boot_id, ensure_private, in_thread, monotonic_ns, published, sleep_s

_RDTSC: Final = bytes.fromhex("0f3148c1e2204809d0c3")  # rdtsc; shl rdx, 32; or rax, rdx; ret
_SPAN_S: Final = 0.05
_TRIES: Final = 25


async def tsc_khz(cache: Path) -> int:
    """Return the rate in kHz; measured once a boot of the host and kept in a file of the folder ``cache``.

    Raises:
        SandboxUnavailable: It can neither be measured nor read.
    """
    kept = cache / "tsc.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(await in_thread(kept.read_bytes))
        if found["boot_id"] == boot_id():
            return int(found["khz"])
    rate = await measure_tsc_khz()
    with suppress(OSError):
        await in_thread(_keep, kept, rate)
    return rate


async def measure_tsc_khz() -> int:
    """Measure the rate against CLOCK_MONOTONIC over 50 ms (within 0.01 %).

    Raises:
        SandboxUnavailable: Neither may code be made at run time, nor does ``/proc/cpuinfo`` tell.
    """
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        # A security module forbids memory that is writable and executable.
        return _from_cpuinfo(await in_thread(Path("/proc/cpuinfo").read_text))
    page.write(_RDTSC)
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    first_ns, first_ticks = _sample(read)
    await sleep_s(_SPAN_S)
    last_ns, last_ticks = _sample(read)
    return round((last_ticks - first_ticks) * 1e6 / (last_ns - first_ns))


def _sample(read: ctypes._CFunctionType) -> tuple[int, int]:
    """Read both clocks at nearly one moment: of several tries, the one in which least time passed."""
    best: tuple[int, int, int] | None = None
    for _ in range(_TRIES):
        before = monotonic_ns()
        ticks = int(read())
        after = monotonic_ns()
        if best is None or after - before < best[0]:
            best = (after - before, (before + after) // 2, ticks)
    assert best is not None
    return best[1], best[2]


def _from_cpuinfo(cpuinfo: str) -> int:
    """Half of BogoMIPS: the kernel derives that from the counter's rate."""
    found = re.search(r"^bogomips\s*:\s*([\d.]+)", cpuinfo, re.MULTILINE)
    if found is None:
        raise SandboxUnavailable(
            "the rate of the time stamp counter cannot be found out",
            why="an emulated guest needs it for its clock",
            hint="use --sandbox container",
        )
    return round(float(found[1]) * 500)


def _keep(path: Path, khz: int) -> None:
    ensure_private(path.parent)
    with published(path) as stream:
        stream.write(json.dumps({"boot_id": boot_id(), "khz": khz}).encode())
