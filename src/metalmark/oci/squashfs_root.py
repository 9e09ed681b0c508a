"""The root folder of a finished squashfs: mksquashfs takes its mode, owner and time from no tar stream.

They are written into its inode afterwards. The format is the kernel's ``fs/squashfs/squashfs_fs.h``; as nothing is
compressed, each field is in its place.
"""

from __future__ import annotations

import os
import struct

from metalmark.model import ToolMissing
from metalmark.oci.entry import Entry, EntryKind
from metalmark.oci.merge import IMPLIED_MODE

_MAGIC = b"hsqs"
_SUPERBLOCK_BYTES = 96
_ID_COUNT, _ROOT_INODE, _BYTES_USED, _ID_TABLE, _XATTR_TABLE, _INODE_TABLE = 26, 32, 40, 48, 56, 64
"""Offsets in ``struct squashfs_super_block``."""
_NONE = 2**64 - 1
_METADATA_BYTES = 8192
_STORED = 0x8000
"""Flag in a metadata block's length: it is not compressed."""
_PADDED_TO = 4096
_MAX_TIME_S = 2**32 - 1


def describe_root(image: int, root: Entry | None) -> None:
    """Write mode, owner and time of the root folder.

    Args:
        image: Descriptor of the squashfs, open for reading and writing.
        root: What the layers say of it; None: nothing.

    Raises:
        ToolMissing: This is no uncompressed squashfs.
    """
    start = os.pread(image, _SUPERBLOCK_BYTES, 0)
    if len(start) < _SUPERBLOCK_BYTES or not start.startswith(_MAGIC):
        raise ToolMissing("mksquashfs made something that is no squashfs", hint="apt-get install squashfs-tools")
    described = root or Entry(name=b"", kind=EntryKind.DIRECTORY, mode=IMPLIED_MODE)
    ids = _with_ids(image, (described.uid, described.gid))
    mtime = min(max(described.mtime_s, 0), _MAX_TIME_S)
    # After the inode's type: mode, index of the owner, index of the group, time.
    fields = struct.pack("<HHHI", described.mode, ids.index(described.uid), ids.index(described.gid), mtime)
    reference = _number(image, _ROOT_INODE)
    block, offset = _number(image, _INODE_TABLE) + (reference >> 16), (reference & 0xFFFF) + 2
    while fields:
        if offset >= _METADATA_BYTES:
            block, offset = block + 2 + _METADATA_BYTES, offset - _METADATA_BYTES
        _check_stored(image, block)
        step = min(len(fields), _METADATA_BYTES - offset)
        os.pwrite(image, fields[:step], block + 2 + offset)
        fields, offset = fields[step:], offset + step


def _with_ids(image: int, wanted: tuple[int, ...]) -> list[int]:
    """Return the table of user and group ids, after adding those that nothing else in the image has."""
    ids = _read_ids(image)
    missing = sorted(set(wanted).difference(ids))
    if missing:
        _replace_ids(image, [*ids, *missing])
        ids += missing
    return ids


def _read_ids(image: int) -> list[int]:
    (count,) = struct.unpack("<H", os.pread(image, 2, _ID_COUNT))
    ids: list[int] = []
    for block in _id_blocks(image, count):
        _check_stored(image, block)
        size = min(_METADATA_BYTES, 4 * (count - len(ids)))
        ids += (value for (value,) in struct.iter_unpack("<I", os.pread(image, size, block + 2)))
    return ids


def _id_blocks(image: int, count: int) -> list[int]:
    blocks = -(-4 * count // _METADATA_BYTES)
    return [start for (start,) in struct.iter_unpack("<Q", os.pread(image, 8 * blocks, _number(image, _ID_TABLE)))]


def _replace_ids(image: int, ids: list[int]) -> None:
    """Write another id table in place of the present one, and move the attributes, which come after it."""
    (count,) = struct.unpack("<H", os.pread(image, 2, _ID_COUNT))
    first = _id_blocks(image, count)[0]
    behind = _number(image, _ID_TABLE) + 8 * -(-4 * count // _METADATA_BYTES)
    used, attributes = _number(image, _BYTES_USED), _number(image, _XATTR_TABLE)
    tail = bytearray(os.pread(image, used - behind, behind))
    packed = struct.pack(f"<{len(ids)}I", *ids)
    table, index = bytearray(), bytearray()
    for start in range(0, len(packed), _METADATA_BYTES):
        block = packed[start : start + _METADATA_BYTES]
        index += struct.pack("<Q", first + len(table))
        table += struct.pack("<H", len(block) | _STORED) + block
    shift = first + len(table) + len(index) - behind
    if attributes != _NONE:
        _shift_attributes(tail, attributes - behind, shift)
        os.pwrite(image, struct.pack("<Q", attributes + shift), _XATTR_TABLE)
    os.pwrite(image, table + index + tail, first)
    end = used + shift
    os.ftruncate(image, -(-end // _PADDED_TO) * _PADDED_TO)
    os.pwrite(image, bytes(-end % _PADDED_TO), end)
    os.pwrite(image, struct.pack("<H", len(ids)), _ID_COUNT)
    os.pwrite(image, struct.pack("<QQ", end, first + len(table)), _BYTES_USED)


def _shift_attributes(tail: bytearray, table: int, shift: int) -> None:
    # The table of attributes: where they start, how many there are, and where each block of their index is.
    start, count = struct.unpack_from("<QI", tail, table)
    struct.pack_into("<Q", tail, table, start + shift)
    for position in range(table + 16, table + 16 + 8 * -(-16 * count // _METADATA_BYTES), 8):
        struct.pack_into("<Q", tail, position, struct.unpack_from("<Q", tail, position)[0] + shift)


def _number(image: int, offset: int) -> int:
    value: int = struct.unpack("<Q", os.pread(image, 8, offset))[0]
    return value


def _check_stored(image: int, block: int) -> None:
    (length,) = struct.unpack("<H", os.pread(image, 2, block))
    if not length & _STORED:
        raise ToolMissing("mksquashfs compressed what it was told not to", hint="apt-get install squashfs-tools")
