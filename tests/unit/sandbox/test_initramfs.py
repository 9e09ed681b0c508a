"""The initramfs archive."""

from __future__ import annotations

import stat
from pathlib import Path

from metalmark.sandbox.initramfs import CpioEntry, cpio, initramfs_entries, make_initramfs
from metalmark.sandbox.kernel_modules import Module


def read_cpio(archive: bytes) -> dict[str, tuple[int, bytes]]:
    found, offset = {}, 0
    while True:
        assert offset % 4 == 0
        assert archive[offset : offset + 6] == b"070701"
        fields = [int(archive[offset + 6 + n * 8 : offset + 14 + n * 8], 16) for n in range(13)]
        size, name_size = fields[6], fields[11]
        name = archive[offset + 110 : offset + 110 + name_size - 1].decode()
        data = offset + 110 + name_size + (-(110 + name_size) % 4)
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], archive[data : data + size])
        offset = data + size + (-size % 4)


def test_archive_holds_agent_modules_in_order_and_console() -> None:
    found = read_cpio(cpio(initramfs_entries(b"agent!", [("virtio_ring", b"1"), ("virtio", b"22")])))
    assert found["init"] == (stat.S_IFREG | 0o755, b"agent!")
    assert [name for name in found if name.startswith("modules/")] == [
        "modules/00-virtio_ring.ko",
        "modules/01-virtio.ko",
    ]
    assert stat.S_ISCHR(found["dev/console"][0])


def test_padding_of_any_length() -> None:
    for length in range(9):
        found = read_cpio(cpio([CpioEntry(name="x" * (length + 1), mode=stat.S_IFREG, content=b"y" * length)]))
        assert found["x" * (length + 1)][1] == b"y" * length


def test_same_content_is_one_file_and_other_content_another(tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    agent.write_bytes(b"agent")
    module = tmp_path / "m.ko"
    module.write_bytes(b"module")
    modules = [Module(name="m", path=module, depends=())]
    first = make_initramfs(tmp_path / "cache", agent, modules)
    written = first.stat().st_mtime_ns
    assert make_initramfs(tmp_path / "cache", agent, modules) == first
    assert first.stat().st_mtime_ns == written
    agent.write_bytes(b"agent 2")
    assert make_initramfs(tmp_path / "cache", agent, modules) != first
