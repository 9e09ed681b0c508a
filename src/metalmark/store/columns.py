"""Column types that mean the same on SQLite and PostgreSQL, and the shapes that many tables share."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, Text, func, literal
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.type_api import TypeEngine
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""All tables. Constraint names are the same on both engines, so that an error of either names the field."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Identifier(TypeDecorator[UUID]):
    """A UUID: the native type on PostgreSQL, 16 bytes on SQLite."""

    impl = LargeBinary(16)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the column type of an engine."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.UUID(as_uuid=True))
        return dialect.type_descriptor(LargeBinary(16))

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> Any:  # noqa: ANN401 - what the driver takes
        """Return what the driver takes for a value."""
        if value is None or dialect.name == "postgresql":
            return value
        return value.bytes

    def process_result_value(self, value: Any, dialect: Dialect) -> UUID | None:  # noqa: ANN401, ARG002 - what the driver gives; all have one signature
        """Return the value of what the driver gave."""
        if value is None or isinstance(value, UUID):
            return value
        return UUID(bytes=value)


class Instant(TypeDecorator[datetime]):
    """An aware time as whole microseconds since the epoch, UTC.

    An integer sorts, adds and compares alike on both engines, and no driver or session time zone can turn it.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - see above
        """Return what the driver takes for a value."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - all types have one signature
        """Return the value of what the driver gave."""
        return None if value is None else _EPOCH + value * _MICROSECOND


class Document(TypeDecorator[Any]):
    r"""A JSON value, as ASCII text.

    Text, because PostgreSQL's own JSON types refuse or mangle what JSON allows (``\u0000``, lone surrogates, large
    numbers), and nothing queries inside of documents. None is SQL NULL.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ANN401, ARG002 - any JSON value
        """Return what the driver takes for a value."""
        return None if value is None else json.dumps(value, separators=(",", ":"), allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ANN401, ARG002 - any JSON value; all have one signature
        """Return the value of what the driver gave."""
        return None if value is None else json.loads(value)


class Words(TypeDecorator[str]):
    """Text that compares and sorts by code point on both engines, whatever the database's locale."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the column type of an engine."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.TEXT(collation="C"))
        return dialect.type_descriptor(Text())


def id_column() -> Column[UUID]:
    """The primary key of a table of things."""
    return Column("id", Identifier, primary_key=True)


def created_column() -> Column[datetime]:
    """When the row was made."""
    return Column("created", Instant, nullable=False)


def modified_column() -> Column[datetime]:
    """When the row was last changed on purpose."""
    return Column("modified", Instant, nullable=False)


def id_text(column: ColumnElement[UUID], dialect_name: str) -> ColumnElement[str]:
    """An identifier as its hyphenated lower case text, to search in."""
    if dialect_name == "postgresql":
        return func.cast(column, Text)
    digits = func.lower(func.hex(column))
    parts = [func.substr(digits, start, length) for start, length in ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))]
    text: ColumnElement[str] = parts[0]
    for part in parts[1:]:
        text = text.op("||")(literal("-")).op("||")(part)
    return text
