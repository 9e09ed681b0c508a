from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from metalmark.model import BranchName, InputError, ResourceName, Slug
from metalmark.wire import (
    U8,
    U32,
    BenchmarkIdField,
    Body,
    BranchIdField,
    DateTimeField,
    EmailField,
    Flag,
    JwtField,
    NameIdField,
    PositiveI32,
    PositiveI64,
    ResourceIdField,
    ResourceNameField,
    SlugField,
    StrictPatch,
    UrlField,
    UserNameField,
    UuidField,
    format_date_time,
    parse_date_time,
)

ANY_UUID = "01970000-0000-7000-8000-000000000001"


class Sample(Body):
    name: ResourceNameField
    slug: SlugField | None = None
    when: DateTimeField | None = None
    uuid: UuidField | None = None
    count: U8 = 0


class Change(StrictPatch):
    clearable: ClassVar[frozenset[str]] = frozenset(("slug",))

    name: ResourceNameField | None = None
    slug: SlugField | None = None


def read(kind: Any, value: object) -> Any:
    return TypeAdapter(kind).validate_python(value)


def test_a_body_is_read_checked_and_written() -> None:
    body = Sample.model_validate(
        {"name": "Rack 7", "slug": "rack-7", "when": "2026-01-31T10:15:00.9+01:00", "uuid": ANY_UUID.upper(), "new": 1}
    )
    assert type(body.slug) is Slug
    assert type(body.name) is ResourceName
    assert body.model_dump(mode="json") == {
        "name": "Rack 7", "slug": "rack-7", "when": "2026-01-31T09:15:00Z", "uuid": ANY_UUID, "count": 0,
    }  # fmt: skip
    assert Sample.model_validate_json(body.model_dump_json()) == Sample(
        name=ResourceName("Rack 7"),
        slug=Slug("rack-7"),
        when=datetime(2026, 1, 31, 9, 15, tzinfo=UTC),
        uuid=UUID(ANY_UUID),
    )


def test_a_change_says_what_it_clears_and_leaves() -> None:
    assert not Change().clears("slug")
    assert not Change.model_validate({"slug": "a"}).clears("slug")
    assert Change.model_validate({"slug": None}).clears("slug")


@pytest.mark.parametrize("change", [{"name": None}, {"unknown": 1}, {"name": "a", "slug": 1}, [], None])
def test_a_change_refuses_what_it_does_not_know_and_null_that_clears_nothing(change: object) -> None:
    with pytest.raises(ValidationError):
        Change.model_validate(change)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (U8, 2.0), (U8, "2"), (U8, True), (U8, 256), (U8, -1), (U32, 2**32), (PositiveI32, 0), (PositiveI32, 2**31),
        (PositiveI64, 2**63), (PositiveI64, 0), (Flag, 1), (Flag, "true"), (ResourceNameField, 3),
        (ResourceNameField, None), (ResourceNameField, b"a"), (SlugField, "A b"), (EmailField, "a"),
        (UserNameField, "a_b"), (JwtField, "a.b"), (UuidField, "x"), (UuidField, 5), (ResourceIdField, "A b"),
        (BranchIdField, "a b"), (BenchmarkIdField, ""), (NameIdField, " x"), (DateTimeField, 1700000000),
        (DateTimeField, "2026-01-31"), (UrlField, "x"), (UrlField, "javascript:alert(1)"),
        (UrlField, "javascript://a/%0aalert(1)"), (UrlField, "https://"), (UrlField, "https://a/\ud800"),
        (UrlField, "https://\udfff"), (UrlField, "https://a/\x00"), (UrlField, "https://a b"),
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_refused(kind: Any, value: object) -> None:
    with pytest.raises(ValidationError):
        read(kind, value)


def test_a_refused_credential_is_not_repeated_in_the_reason() -> None:
    with pytest.raises(ValidationError) as caught:
        read(JwtField, "bencher_user_secret")
    assert [error["msg"] for error in caught.value.errors()] == [
        "this is not a JWT: three base64url segments joined by dots"
    ]


def test_ids_become_what_they_are() -> None:
    assert read(ResourceIdField, ANY_UUID) == UUID(ANY_UUID)
    assert type(read(ResourceIdField, "main")) is Slug
    assert type(read(BranchIdField, "feature/x")) is BranchName
    assert type(read(NameIdField, "Rack 7")) is ResourceName


@pytest.mark.parametrize(
    "url", ["https://example.com", "http://localhost:3000/", "ssh://git@host/x.git", "HTTPS://a/?b#c"]
)
def test_absolute_urls(url: str) -> None:
    assert read(UrlField, url) == url


def test_a_schema_says_the_rule() -> None:
    properties = Sample.model_json_schema()["properties"]
    assert properties["name"] == {"type": "string", "minLength": 1, "maxLength": 64, "title": "Name"}
    assert properties["when"]["anyOf"][0] == {"type": "string", "format": "date-time"}
    assert properties["count"]["maximum"] == 255


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-31T09:15:00Z", datetime(2026, 1, 31, 9, 15, tzinfo=UTC)),
        ("2026-01-31t09:15:00z", datetime(2026, 1, 31, 9, 15, tzinfo=UTC)),
        ("2026-01-31 09:15:00+00:00", datetime(2026, 1, 31, 9, 15, tzinfo=UTC)),
        ("2026-01-31T09:15:00.123456789-05:30", datetime(2026, 1, 31, 14, 45, 0, 123456, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_instants_with_any_offset(text: str, instant: datetime) -> None:
    assert parse_date_time(text) == instant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-31",
        "2026-01-31T09:15:00",
        "2026-02-30T00:00:00Z",
        "2026-01-31T25:00:00Z",
        "2026-01-31T09:15Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "0000-01-01T00:00:00Z",
        "٢٠٢٦-01-31T09:15:00Z",
        "2026-01-31T09:15:00+24:00",
        "20260131T091500Z",
        "2026-01-31T09:15:00Z\n",
        "1700000000",
    ],
)
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_date_time(text)


@given(st.datetimes(min_value=datetime(1000, 1, 2), max_value=datetime(9999, 12, 30)), st.integers(-1439, 1439))
def test_instants_read_back_to_the_second(naive: datetime, offset_min: int) -> None:
    instant = naive.replace(tzinfo=timezone(timedelta(minutes=offset_min)))
    assert parse_date_time(format_date_time(instant)) == instant.astimezone(UTC).replace(microsecond=0)
    assert parse_date_time(instant.isoformat()) == instant


@given(st.text(max_size=60))
def test_any_text_is_an_instant_or_refused(text: str) -> None:
    with contextlib.suppress(InputError):
        assert parse_date_time(text).tzinfo is UTC
