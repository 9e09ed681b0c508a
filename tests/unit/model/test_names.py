from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import (
    BenchmarkName,
    BranchName,
    Email,
    GitHash,
    InputError,
    ResourceName,
    Slug,
    UserName,
    parse_name_id,
    parse_resource_id,
    parse_uuid,
)

UUID = uuid.UUID("01970000-0000-7000-8000-00000000000a")


@pytest.mark.parametrize("text", ["a", "Rack 7", "é" * 32, "x" * 64, "日本"])
def test_resource_names_are_taken_as_they_are(text: str) -> None:
    assert ResourceName.parse(text) == text


@pytest.mark.parametrize(
    "text", ["", " a", "a ", "a\u00a0", "é" * 33, "x" * 65, "a\0b", "a\x1b[31mb", "\ud800", "a\nb"]
)
def test_resource_names_out_of_bounds_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        ResourceName.parse(text)


@pytest.mark.parametrize("text", ["Ada Lovelace", "O'Neil, Jr.", "x-1"])
def test_user_names(text: str) -> None:
    assert UserName.parse(text) == text


@pytest.mark.parametrize("text", ["Ada!", "é", "a_b", " a", "x" * 65, "a\n", "<b>"])
def test_user_names_with_other_characters_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        UserName.parse(text)


@pytest.mark.parametrize("text", ["main", "feature/x", "a.b", "v1.2", "é", "a@b", "x" * 256, "-a"])
def test_branch_names(text: str) -> None:
    assert BranchName.parse(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b",
        ".a",
        "a/.b",
        "a..b",
        "a~",
        "a^",
        "a:",
        "a?",
        "a*",
        "a[",
        "a\\",
        "a/",
        "/a",
        "a//b",
        "a.lock",
        "a.lock/b",
        "a.",
        "@",
        "a@{b",
        "a\x7f",
        "a\n",
        "x" * 257,
        "é" * 129,
    ],
)
def test_branch_names_that_git_refuses(text: str) -> None:
    with pytest.raises(InputError):
        BranchName.parse(text)


def test_benchmark_names_may_hold_white_space_anywhere_but_no_nul() -> None:
    assert BenchmarkName.parse(" a\nb ") == " a\nb "
    for text in ("", "x" * 1025, "a\0"):
        with pytest.raises(InputError):
            BenchmarkName.parse(text)


def test_addresses_are_lowered() -> None:
    assert Email.parse("Ada.L+x@Example.COM") == "ada.l+x@example.com"
    assert Email.parse("root@localhost") == "root@localhost"
    assert Email.parse("a@lab.test") == "a@lab.test"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a@",
        "@b",
        "a b@c.d",
        "a@b c",
        "a@b\n",
        "a\r\nBcc: x@y.z@b.c",
        "x" * 65 + "@b.c",
        "x@" + "y." * 126 + "c",
        "a..b@c",
        ".a@b",
        "a@-b.c",
        "a@b..c",
        "ü@b.c",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="email"):
        Email.parse(text)


def test_git_hashes_keep_their_case() -> None:
    assert GitHash.parse("6B1f" * 10) == "6B1f" * 10
    for text in ("", "6b1f", "g" * 40, "6b1f" * 10 + "0", "6b1f" * 10 + "\n"):
        with pytest.raises(InputError):
            GitHash.parse(text)


@pytest.mark.parametrize("text", [str(UUID), UUID.hex, f"{{{UUID}}}", UUID.urn, str(UUID).upper(), f"{{{UUID.hex}}}"])
def test_every_spelling_of_a_uuid(text: str) -> None:
    assert parse_uuid(text) == UUID
    assert parse_resource_id(text) == UUID


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0-1970000-0000-7000-8000-00000000000a",
        "1_970000000070008000000000000000",
        str(UUID) + "0",
        f"{{{UUID}",
        " " + UUID.hex[1:],
        "+" + UUID.hex[1:],
        UUID.hex + "\n",
    ],
)
def test_what_is_no_uuid_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_uuid(text)


def test_a_name_id_is_a_uuid_then_a_slug_then_a_name() -> None:
    assert parse_name_id(UUID.hex, BranchName) == UUID
    assert type(parse_name_id("main", BranchName)) is Slug
    assert type(parse_name_id("feature/x", BranchName)) is BranchName
    assert type(parse_name_id("Rack 7", ResourceName)) is ResourceName
    with pytest.raises(InputError):
        parse_name_id("a b", BranchName)


def test_a_resource_id_is_no_name() -> None:
    assert type(parse_resource_id("rack-7")) is Slug
    with pytest.raises(InputError):
        parse_resource_id("Rack 7")


@given(st.text(max_size=300))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    for parse in (
        ResourceName.parse,
        UserName.parse,
        BranchName.parse,
        BenchmarkName.parse,
        Email.parse,
        GitHash.parse,
    ):
        try:
            name = parse(text)
        except InputError:
            continue
        assert "\0" not in name
        assert name.encode()
