"""Build hook: puts the static programs of ``guest/`` into the package, for each architecture that can be compiled for.

Each binary is recorded with the digest of the sources it was made from (``BUILT.json`` beside it). What matches is used
as it is: a wheel from an sdist, which brings the binaries along, needs no compiler. Else, in this order: ``musl-gcc``
for this machine, a cross compiler of the distribution, and ``zig cc`` (the ``ziglang`` distribution on PyPI, about
440 MB unpacked), which a release asks for by ``METALMARK_AGENT_COMPILER=zig``. An editable install builds for this
machine only. Where nothing can compile, the package installs all the same, and says what is missing when it is needed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MACHINES = ("x86_64", "aarch64")
PROGRAMS = ("agent", "selftest")
FOLDER = "src/metalmark/sandbox/agent"
RECORD = "BUILT.json"
ZIG = "ziglang>=0.13"


def source_digest(guest: Path) -> str:
    """Return the digest of all that the programs are made from."""
    digest = hashlib.sha256()
    files = [guest / "Makefile", *guest.glob("*.[ch]"), *guest.glob("selftest/*.[ch]")]
    for path in sorted(files):
        digest.update(f"{path.relative_to(guest)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def binaries(machine: str) -> tuple[str, ...]:
    """Return the file names of one machine's programs."""
    return tuple(f"metalmark-{program}-{machine}" for program in PROGRAMS)


def file_digest(path: Path) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Record:
    """Which binaries are there, and what they were made from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / RECORD
        try:
            self._entries: dict[str, dict[str, str]] = json.loads(self._path.read_text())
        except (OSError, ValueError):
            self._entries = {}

    def matches(self, machine: str, sources: str) -> bool:
        """Whether this machine's programs are there, whole, and made from these sources."""
        for name in binaries(machine):
            entry, path = self._entries.get(name, {}), self._folder / name
            if entry.get("sources") != sources or not path.is_file() or entry.get("sha256") != file_digest(path):
                return False
        return True

    def note(self, machine: str, sources: str) -> None:
        """Write down what this machine's programs were made from."""
        for name in binaries(machine):
            self._entries[name] = {"sources": sources, "sha256": file_digest(self._folder / name)}
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self._entries, indent=1, sort_keys=True) + "\n")
        partial.replace(self._path)


def compilers(machine: str) -> Iterator[str]:
    """Yield the compilers that can make this machine's programs, best first, as make's ``CC``."""
    if not shutil.which("make"):
        return
    zig = f"{sys.executable} -m ziglang cc -target {machine}-linux-musl"
    has_zig = importlib.util.find_spec("ziglang") is not None
    if has_zig and os.environ.get("METALMARK_AGENT_COMPILER") == "zig":
        yield zig
        return
    if machine == platform.machine() and links_static("musl-gcc"):
        yield "musl-gcc"
    cross = f"{machine}-linux-gnu-gcc"
    if links_static(cross):
        yield cross
    if has_zig:
        yield zig


def links_static(compiler: str) -> bool:
    """Whether a compiler is there, and its C library too, which comes in a package of its own."""
    if not shutil.which(compiler):
        return False
    argv = [compiler, "-static", "-o", "/dev/null", "-x", "c", "-"]
    program = b'#include <stdio.h>\nint main(void) { return puts(""); }\n'
    return subprocess.run(argv, input=program, check=False, stderr=subprocess.DEVNULL).returncode == 0


class GuestProgramsHook(BuildHookInterface):
    """Makes the programs before the files are collected."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Ask for zig when a release is built, or nothing on this machine could make what the wheel lacks."""
        if os.environ.get("METALMARK_AGENT_COMPILER") == "zig":
            return [ZIG]
        # Hatchling does not say for what it asks, and nobody wants 440 MB for an editable install.
        if any(frame.function == "get_requires_for_build_editable" for frame in inspect.stack(context=0)):
            return []
        root = Path(self.root)
        record, sources = Record(root / FOLDER), source_digest(root / "guest")
        lacking = [machine for machine in MACHINES if not record.matches(machine, sources)]
        return [ZIG] if any(next(compilers(machine), None) is None for machine in lacking) else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make what does not match, and have the binaries packed although git ignores them."""
        root = Path(self.root)
        folder, sources = root / FOLDER, source_digest(root / "guest")
        folder.mkdir(parents=True, exist_ok=True)
        editable = version == "editable"
        for machine in MACHINES:
            record = Record(folder)
            if record.matches(machine, sources) or (editable and machine != platform.machine()):
                continue
            if self._make(machine, folder):
                record.note(machine, sources)
                continue
            for name in binaries(machine):  # older than the sources: none is better than a wrong one
                (folder / name).unlink(missing_ok=True)
            self.app.display_warning(
                f"no compiler for the guest agent of {machine}: install musl-tools, or ziglang from PyPI"
            )
        for machine in MACHINES:
            build_data["artifacts"] += [f"/{FOLDER}/{name}" for name in binaries(machine)]
        build_data["artifacts"].append(f"/{FOLDER}/{RECORD}")

    def _make(self, machine: str, folder: Path) -> bool:
        for compiler in compilers(machine):
            done = subprocess.run(
                ["make", "-B", f"MACHINE={machine}", f"CC={compiler}", f"OUT={folder}"],
                cwd=Path(self.root) / "guest",
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if done.returncode == 0:
                return True
            self.app.display_warning(f"{compiler} could not build the guest agent:\n{done.stdout[-2000:]}")
        return False
