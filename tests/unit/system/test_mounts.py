from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from metalmark.system import parse_mountinfo

_LINES = rb"""22 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard
30 22 0:26 /a\040b /mnt/with\040space\134and\011tab rw,nosuid - tmpfs none rw,size=4k
31 22 0:27 / /odd rw - fuse.x \043hash rw
cut 1 2
"""


def test_fields_and_escapes() -> None:
    first, second, third = parse_mountinfo(_LINES)
    assert (first.target, first.fs_type, first.source) == ("/", "ext4", "/dev/vda")
    assert first.super_options == {"rw", "discard"}
    assert second.root == "/a b"
    assert second.target == "/mnt/with space\\and\ttab"
    assert second.options == {"rw", "nosuid"}
    assert third.source == "#hash"


def test_names_that_are_not_utf8_come_back_as_they_are() -> None:
    (entry,) = parse_mountinfo(b"1 2 0:1 / /\xff\xfe rw - tmpfs t rw\n")
    assert entry.target.encode("utf-8", "surrogateescape") == b"/\xff\xfe"


@given(st.lists(st.sampled_from([b"1", b"-", b"rw", b"/", b"x", b"0:1", b""]), max_size=14))
def test_no_line_breaks_the_reader(words: list[bytes]) -> None:
    line = b"7 8 0:9 / /x rw " + b" ".join(words)
    for entry in parse_mountinfo(line):
        assert entry.mount_id == 7
