"""The kernel's modules that a guest needs, in an order in which they load.

A distribution's package has no ``modules.dep`` (its install script makes it), so that each module's own ``depends=``
in its ``.modinfo`` section is read. A wrong order shows as ENOENT from ``finit_module``: an unresolved symbol.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from metalmark.model import StableError, ToolMissing


@dataclass(frozen=True, kw_only=True)
class Module:
    """One module file."""

    name: str
    """With underscores, as ``/proc/modules`` has it."""
    path: Path
    depends: tuple[str, ...]


def module_name(path: Path) -> str:
    """Return the name of a module file, compressed or not: ``virtio-rng.ko.zst`` is ``virtio_rng``."""
    return path.name.partition(".ko")[0].replace("-", "_")


def module_depends(content: bytes) -> tuple[str, ...]:
    """Return the names that a module's ``.modinfo`` section says it depends on.

    Raises:
        StableError: This is not a 64-bit little-endian ELF file, or it has no such section.
    """
    for entry in _section(content, b".modinfo").split(b"\0"):
        key, _, value = entry.partition(b"=")
        if key == b"depends":
            return tuple(name.replace("-", "_") for name in value.decode("ascii").split(",") if name)
    return ()


def load_order(wanted: Iterable[str], modules: Mapping[str, Module], builtin: frozenset[str]) -> tuple[Module, ...]:
    """Return the wanted modules and all that they depend on, each after what it depends on.

    Raises:
        ToolMissing: A module is neither there nor built into the kernel.
    """
    ordered: dict[str, Module] = {}
    visiting: set[str] = set()

    def visit(name: str, needed_by: str) -> None:
        if name in ordered or name in builtin or name in visiting:
            return
        module = modules.get(name)
        if module is None:
            raise ToolMissing(
                f"the guest kernel has no module {name}" + (f" (needed by {needed_by})" if needed_by else ""),
                why="a box cannot boot without it",
                hint="set up another kernel with `metalmark host setup`",
            )
        visiting.add(name)
        for dependency in module.depends:
            visit(dependency, name)
        ordered[name] = module

    for name in wanted:
        visit(name, "")
    return tuple(ordered.values())


def read_builtin(modules_builtin: str) -> frozenset[str]:
    """Return the names in a ``modules.builtin`` file."""
    return frozenset(module_name(Path(line)) for line in modules_builtin.splitlines() if line.strip())


def _section(content: bytes, name: bytes) -> bytes:
    """Return a section of an ELF64 file."""
    try:
        if content[:6] != b"\x7fELF\x02\x01":
            raise StableError("a kernel module that is no 64-bit ELF file")
        (table,) = struct.unpack_from("<Q", content, 0x28)
        size, count, names_index = struct.unpack_from("<HHH", content, 0x3A)
        names_at, names_size = struct.unpack_from("<QQ", content, table + names_index * size + 0x18)
        names = content[names_at : names_at + names_size]
        for index in range(count):
            header = table + index * size
            (name_at,) = struct.unpack_from("<I", content, header)
            if names[name_at : names.find(b"\0", name_at)] == name:
                start, length = struct.unpack_from("<QQ", content, header + 0x18)
                return content[start : start + length]
    except struct.error as error:
        raise StableError("a kernel module that is cut off", why=str(error)) from error
    raise StableError(f"a kernel module without a section {name.decode()}")
