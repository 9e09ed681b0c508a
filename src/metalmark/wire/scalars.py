"""The scalar fields of REST bodies, paths and queries as Pydantic types.

Text becomes the domain's own type (`Slug`, `ResourceName`, …), so that what was checked stays known; integers and
booleans are strict: ``2.0``, ``"2"`` and ``true`` are no integers. A refused value is a validation error that does not
repeat secrets. Instants are written in UTC with ``Z`` and whole seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, ClassVar, TypeVar
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from metalmark.model import (
    BENCHMARK_NAME_MAX_BYTES,
    BRANCH_NAME_MAX_BYTES,
    EMAIL_MAX_BYTES,
    GIT_HASH_PATTERN,
    RESOURCE_NAME_MAX_BYTES,
    SLUG_MAX_BYTES,
    SLUG_PATTERN,
    USER_NAME_PATTERN,
    BenchmarkName,
    BranchName,
    Email,
    GitHash,
    InputError,
    ResourceName,
    Slug,
    UserName,
    has_jwt_shape,
    parse_name_id,
    parse_resource_id,
    parse_uuid,
)

T = TypeVar("T")

_DATE_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:([Zz])|([+-](?:[01]\d|2[0-3]):[0-5]\d))", re.ASCII
)


class Body(BaseModel):
    """A JSON object of the REST API: immutable; unknown fields are ignored, as every client may send newer ones."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class StrictPatch(Body):
    """A change to a thing: what is left out stays. Unknown fields are refused, and null is but for what it clears."""

    model_config = ConfigDict(extra="forbid")
    clearable: ClassVar[frozenset[str]] = frozenset()
    """Fields that null clears."""

    @model_validator(mode="before")
    @classmethod
    def _null_only_clears(cls, value: object) -> object:
        if isinstance(value, dict):
            wrong = [name for name in cls.model_fields if name in value and value[name] is None]
            for name in wrong:
                if name not in cls.clearable:
                    raise PydanticCustomError("null", "{name} cannot be null", {"name": name})
        return value

    def clears(self, field: str) -> bool:
        """Whether a field was given as null."""
        return field in self.model_fields_set and getattr(self, field) is None


class _Text:
    """Makes a Pydantic type of a function that parses text; its JSON schema says what it can of the same rule."""

    def __init__(self, parse: Callable[[str], object], **schema: str | int) -> None:
        self._parse = parse
        self._schema = schema

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._read,
            json_schema_input_schema=core_schema.str_schema(),
            serialization=core_schema.to_string_ser_schema(),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", **self._schema}

    def _read(self, value: object) -> object:
        # A value of the domain's own type is taken too: answers are built from records.
        if not isinstance(value, str | UUID):
            raise PydanticCustomError("string_type", "a string is expected")
        try:
            return self._parse(str(value))
        except InputError as error:
            raise PydanticCustomError("value", "{why}", {"why": error.why}) from error


def parse_date_time(text: str) -> datetime:
    """Read an RFC 3339 instant with any offset into UTC.

    Raises:
        InputError: It is no such instant, has no offset, or lies outside the years 1 to 9999.
    """
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise InputError("date", text[:64], "this is not RFC 3339 with an offset", hint="like 2026-01-31T09:15:00Z")
    date, time, fraction, _, offset = match.groups()
    # A leap second exists on the wire and not in Python; the second after it is the same instant in UTC's count.
    leap = time.endswith(":60")
    try:
        seconds = time.removesuffix("60") + "59" if leap else time
        read = datetime.fromisoformat(f"{date}T{seconds}.{(fraction or '0')[:6]:0<6}{offset or '+00:00'}")
        return read.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InputError("date", text[:64], "there is no such day or time") from error


def format_date_time(instant: datetime) -> str:
    """Return an instant as the wire has it: UTC, ``Z``, whole seconds (a fraction is cut off, not rounded)."""
    return instant.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def _date_time(value: object) -> datetime:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    if not isinstance(value, str):
        raise PydanticCustomError("date_time", "an RFC 3339 date and time with an offset is expected")
    try:
        return parse_date_time(value)
    except InputError as error:
        raise PydanticCustomError("date_time", "{why}", {"why": error.why}) from error


class _DateTime:
    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _date_time,
            json_schema_input_schema=core_schema.str_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(
                format_date_time, return_schema=core_schema.str_schema()
            ),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "format": "date-time"}


def _jwt(text: str) -> str:
    if not has_jwt_shape(text):
        raise InputError("token", "***", "this is not a JWT: three base64url segments joined by dots")
    return text


def _branch_id(text: str) -> UUID | Slug | BranchName:
    return parse_name_id(text, BranchName)


def _name_id(text: str) -> UUID | Slug | ResourceName:
    return parse_name_id(text, ResourceName)


def _benchmark_id(text: str) -> UUID | Slug | BenchmarkName:
    return parse_name_id(text, BenchmarkName)


ResourceNameField = Annotated[ResourceName, _Text(ResourceName.parse, minLength=1, maxLength=RESOURCE_NAME_MAX_BYTES)]
UserNameField = Annotated[UserName, _Text(UserName.parse, pattern=USER_NAME_PATTERN)]
BranchNameField = Annotated[BranchName, _Text(BranchName.parse, minLength=1, maxLength=BRANCH_NAME_MAX_BYTES)]
BenchmarkNameField = Annotated[
    BenchmarkName, _Text(BenchmarkName.parse, minLength=1, maxLength=BENCHMARK_NAME_MAX_BYTES)
]
EmailField = Annotated[Email, _Text(Email.parse, format="email", maxLength=EMAIL_MAX_BYTES)]
SlugField = Annotated[Slug, _Text(Slug.parse, pattern=SLUG_PATTERN, maxLength=SLUG_MAX_BYTES)]
GitHashField = Annotated[GitHash, _Text(GitHash.parse, pattern=GIT_HASH_PATTERN)]
UuidField = Annotated[UUID, _Text(parse_uuid, format="uuid")]
ResourceIdField = Annotated[UUID | Slug, _Text(parse_resource_id, minLength=1, maxLength=SLUG_MAX_BYTES)]
"""A UUID, else a slug: bodies and path parameters."""
NameIdField = Annotated[UUID | Slug | ResourceName, _Text(_name_id, minLength=1, maxLength=RESOURCE_NAME_MAX_BYTES)]
"""A UUID, else a slug, else a resource name: testbeds and measures."""
BranchIdField = Annotated[UUID | Slug | BranchName, _Text(_branch_id, minLength=1, maxLength=BRANCH_NAME_MAX_BYTES)]
BenchmarkIdField = Annotated[
    UUID | Slug | BenchmarkName, _Text(_benchmark_id, minLength=1, maxLength=BENCHMARK_NAME_MAX_BYTES)
]
JwtField = Annotated[str, _Text(_jwt, format="jwt")]
"""Text of JWT shape; whether it is valid is for who holds the secret. Keep it out of logs."""
DateTimeField = Annotated[datetime, _DateTime()]

U8 = Annotated[int, Field(strict=True, ge=0, le=2**8 - 1)]
U32 = Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)]
I32 = Annotated[int, Field(strict=True, ge=-(2**31), le=2**31 - 1)]
PositiveI32 = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
PositiveI64 = Annotated[int, Field(strict=True, ge=1, le=2**63 - 1)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True)]
"""Any text; NUL and all. Bound its length where it is used."""


def _url(text: str) -> str:
    if len(text) > _URL_MAX_LENGTH or not _URL.fullmatch(text):
        raise InputError("url", text[:64], "this is not an absolute URL of scheme http, https, ssh or git")
    return text


_URL_MAX_LENGTH = 2048
# A console makes links of these: a scheme that runs code must not get in. Lone surrogates are no text to a database.
_NOT_IN_URL = r"\s\x00-\x20\x7f<>\"`{}|\\^\ud800-\udfff"
_URL = re.compile(rf"(?i:https?|ssh|git)://[^/?#{_NOT_IN_URL}]+(?:[/?#][^{_NOT_IN_URL}]*)?")
UrlField = Annotated[str, _Text(_url, format="uri", maxLength=_URL_MAX_LENGTH)]
"""An absolute URL as it was given."""
