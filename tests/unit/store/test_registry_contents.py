"""Parts of the registry's contents: where they are in the storage, and in their content."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import new_id
from metalmark.store import ContentPart, part_key
from metalmark.store.blobs import _checked

PART = UUID("01970000-0000-7000-8000-0000000000ab")


def test_a_key_names_its_part_and_nothing_else() -> None:
    assert part_key(PART) == f"registry/ab/{PART}"
    assert ContentPart(id=PART, position=0, size_bytes=1).key == part_key(PART)


@given(st.uuids())
def test_every_key_is_one_of_the_storage(part: UUID) -> None:
    key = part_key(part)
    assert _checked(key) == key
    assert UUID(key.rpartition("/")[2]) == part


def test_parts_that_are_made_one_after_the_other_are_spread_over_folders() -> None:
    folders = {part_key(new_id()).split("/")[1] for _ in range(500)}
    assert len(folders) > 100


def test_where_a_part_ends() -> None:
    assert ContentPart(id=PART, position=10, size_bytes=5).end == 15
    assert ContentPart(id=PART, position=10, size_bytes=0).end == 10
