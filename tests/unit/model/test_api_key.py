from __future__ import annotations

import hashlib

import pytest

from metalmark.model import ApiKey, InputError, KeyKind, has_jwt_shape

EXAMPLE = "bencher_runner_0123456789abcdefghijABCDEFGHIJ"


@pytest.mark.parametrize(("kind", "length"), [(KeyKind.USER, 43), (KeyKind.PROJECT, 42), (KeyKind.RUNNER, 45)])
def test_a_new_key_reads_back_and_has_the_length_that_programs_check(kind: KeyKind, length: int) -> None:
    key = ApiKey.new(kind)
    assert len(key.text) == length
    assert ApiKey.parse(key.text) == key
    assert ApiKey.new(kind) != key


def test_what_is_kept_is_the_hash_of_the_whole_text() -> None:
    assert ApiKey.parse(EXAMPLE).digest == hashlib.sha256(EXAMPLE.encode()).hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bencher_user_",
        EXAMPLE[:-1],
        EXAMPLE + "0",
        EXAMPLE + "\n",
        EXAMPLE[:-1] + "é",
        EXAMPLE[:-1] + "_",
        "bencher_other_" + "0" * 30,
        EXAMPLE.upper(),
        " " + EXAMPLE,
    ],
)
def test_what_is_no_key_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(InputError) as caught:
        ApiKey.parse(text)
    assert "0123456789" not in str(caught.value)


def test_a_key_does_not_show_itself() -> None:
    key = ApiKey.parse(EXAMPLE)
    assert "0123456789" not in repr(key)
    assert "0123456789" not in f"{key}"


def test_the_shape_of_a_jwt() -> None:
    assert has_jwt_shape("eyJ0.eyJh-_.c2ln")
    for text in ("", "a.b", "a.b.", ".a.b", "a.b.c.d", "a.b.c=", "a.b.c\n", "a.b.é", "a.b." + "c" * 9000, EXAMPLE):
        assert not has_jwt_shape(text)
