from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import InputError, Slug, slug_for, slugify, with_suffix


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("Rack 7", "rack-7"),
        ("  --Quiet__8--  ", "quiet-8"),
        ("Ünïcode Straße", "unicode-strasse"),
        ("Ωmega", "omega"),
        ("a" * 70, "a" * 64),
        ("a" * 63 + " b", "a" * 63),
        ("!!!", ""),
        ("", ""),
    ],
)
def test_slugs_of_names(text: str, slug: str) -> None:
    assert slugify(text) == slug


@given(st.text(max_size=200))
def test_a_slug_of_any_text_is_empty_or_well_formed_and_its_own_slug(text: str) -> None:
    slug = slugify(text)
    if slug:
        assert Slug.parse(slug) == slug
        assert slugify(slug) == slug


@given(st.text(max_size=80))
def test_what_is_taken_as_a_slug_is_its_own_slug(text: str) -> None:
    try:
        slug = Slug.parse(text)
    except InputError:
        return
    assert slugify(text) == slug


@pytest.mark.parametrize("text", ["", "-a", "a-", "a--b", "A", "a b", "a_b", "é", "a" * 65, "a\n", "٣"])
def test_what_is_no_slug_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="slug"):
        Slug.parse(text)


def test_the_error_of_a_huge_slug_does_not_repeat_it() -> None:
    with pytest.raises(InputError) as caught:
        Slug.parse("a" * 100_000)
    assert len(str(caught.value)) < 200


def test_a_supplied_slug_is_asked_for_first() -> None:
    assert slug_for("Name", Slug("other")) == "other"
    assert slug_for("My Name") == "my-name"


def test_a_name_without_letters_gets_a_random_slug() -> None:
    assert re.fullmatch(r"[0-9a-z]{8}", slug_for("…"))
    assert slug_for("…") != slug_for("…")


@pytest.mark.parametrize("name", ["0123456789abcdef0123456789abcdef", "01970000-0000-7000-8000-000000000001"])
def test_a_slug_that_reads_as_a_uuid_gets_a_suffix(name: str) -> None:
    assert re.fullmatch(re.escape(name) + r"-[0-9a-z]{8}", slug_for(name))
    assert slug_for("x", Slug(name)) != name


@given(st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)*", fullmatch=True).filter(lambda text: len(text) <= 64))
def test_a_slug_with_a_suffix_is_a_slug(text: str) -> None:
    suffixed = with_suffix(Slug.parse(text))
    assert Slug.parse(suffixed)
    assert suffixed.startswith(text[:55].rstrip("-") + "-")
