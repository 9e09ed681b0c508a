"""Modules and their order."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import StableError, ToolMissing
from metalmark.sandbox.kernel_modules import Module, load_order, module_depends, module_name, read_builtin


def elf_with_modinfo(text: bytes) -> bytes:
    names = b"\0.modinfo\0.shstrtab\0"
    body = text + names
    table = 64 + len(body)
    header = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2)
    )
    sections = bytes(64)
    sections += struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, 64, len(text), 0, 0, 1, 0)
    sections += struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, 64 + len(text), len(names), 0, 0, 1, 0)
    return header + body + sections


def modules(**depends: str) -> dict[str, Module]:
    return {
        name: Module(name=name, path=Path(f"{name}.ko"), depends=tuple(filter(None, value.split(","))))
        for name, value in depends.items()
    }


def test_depends_are_read_with_underscores() -> None:
    content = elf_with_modinfo(b"license=GPL\0depends=virtio-ring,virtio\0name=x\0")
    assert module_depends(content) == ("virtio_ring", "virtio")
    assert module_depends(elf_with_modinfo(b"depends=\0")) == ()


@pytest.mark.parametrize("content", [b"", b"\x7fELF\x01\x01", elf_with_modinfo(b"depends=a\0")[:100]])
def test_broken_module_is_refused(content: bytes) -> None:
    with pytest.raises(StableError):
        module_depends(content)


def test_each_comes_after_what_it_depends_on() -> None:
    found = modules(virtio="virtio_ring", virtio_ring="", virtio_blk="virtio,virtio_ring", virtio_net="net_failover")
    order = [module.name for module in load_order(["virtio_blk"], found, frozenset())]
    assert order == ["virtio_ring", "virtio", "virtio_blk"]


def test_builtin_needs_no_module() -> None:
    assert load_order(["ext4"], {}, frozenset({"ext4"})) == ()


def test_missing_one_names_who_needs_it() -> None:
    with pytest.raises(ToolMissing, match=r"no module failover \(needed by net_failover\)"):
        load_order(["net_failover"], modules(net_failover="failover"), frozenset())


def test_names_and_builtin_list() -> None:
    assert module_name(Path("kernel/drivers/virtio-rng.ko.zst")) == "virtio_rng"
    assert read_builtin("kernel/fs/ext4/ext4.ko\nkernel/lib/crc-t10dif.ko\n") == {"ext4", "crc_t10dif"}


@given(st.dictionaries(st.integers(0, 12), st.lists(st.integers(0, 12), max_size=4), max_size=13))
def test_order_holds_for_any_graph(graph: dict[int, list[int]]) -> None:
    """Also with cycles, of which kernels have none: it ends, and names each module once."""
    known = {f"m{node}": Module(name=f"m{node}", path=Path("x"), depends=tuple(f"m{d}" for d in depends if d in graph))
             for node, depends in graph.items()}  # fmt: skip
    order = [module.name for module in load_order(known, known, frozenset())]
    assert sorted(order) == sorted(known)
    acyclic = all(int(d[1:]) < int(m.name[1:]) for m in known.values() for d in m.depends)
    if acyclic:
        assert all(order.index(d) < order.index(m.name) for m in known.values() for d in m.depends)
