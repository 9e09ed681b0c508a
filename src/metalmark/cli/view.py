"""What a command shows: a table for people, or the JSON value for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, TextIO

from metalmark.model import format_bytes, printable

if TYPE_CHECKING:
    from metalmark.client import Answer, JsonValue

NOTHING = "–"
"""Stands in a table where there is no value."""

_WIDE = 10_000


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table, or a line of a single record."""

    title: str
    path: tuple[str, ...]
    """Fields to descend through."""
    show: Callable[[JsonValue], str]


@dataclass(frozen=True, kw_only=True)
class View:
    """The outcome of a command that asked a server."""

    value: JsonValue
    """What ``--json`` prints."""
    header: tuple[str, ...] = ()
    """Titles of the columns; without any, ``rows`` are lines of name and value."""
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    """Lines for standard error: what was done, what else there is."""
    text: str | None = None
    """Shown instead of rows, as it is."""
    is_document: bool = False
    """Whether people get the JSON too."""


def plain(value: JsonValue) -> str:
    """Show any value on one line."""
    if value is None or value in ("", []):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (str, int, float)):
        return str(value)
    if isinstance(value, Sequence) and all(isinstance(item, (str, int)) for item in value):
        return ", ".join(str(item) for item in value)
    return json.dumps(value)


def size(value: JsonValue) -> str:
    """Show a number of bytes."""
    return format_bytes(value) if isinstance(value, int) and not isinstance(value, bool) else plain(value)


def moment(value: JsonValue) -> str:
    """Show an instant to the second; it stays in UTC, as it is compared with logs of other machines."""
    if not isinstance(value, str) or "T" not in value:
        return plain(value)
    date, _, rest = value.partition("T")
    return f"{date} {rest[:8]}Z" if rest.endswith("Z") else value


def count(value: JsonValue) -> str:
    """Show how many there are in a list."""
    return str(len(value)) if isinstance(value, Sequence) and not isinstance(value, str) else plain(value)


_MOMENTS = frozenset((
    "archived", "claimed", "completed", "created", "creation", "end_time", "expiration", "fallback", "key_created",
    "last_heartbeat", "modified", "proved", "replaced", "revoked", "start_time", "started", "timestamp",
))  # fmt: skip
_SIZES = frozenset(("memory", "disk"))


def column(path: str, title: str | None = None, show: Callable[[JsonValue], str] | None = None) -> Column:
    """Return a column.

    Args:
        path: Fields with dots between, as in ``head.version.number``.
        title: Its title; the last field, with spaces, unless given.
        show: How its values are shown; by the field's name unless given.
    """
    fields = tuple(path.split("."))
    usual = moment if fields[-1] in _MOMENTS else size if fields[-1] in _SIZES else plain
    return Column(title=title or fields[-1].replace("_", " "), path=fields, show=show or usual)


def columns(*paths: str | Column) -> tuple[Column, ...]:
    """Return columns; a text stands for `column` of it."""
    return tuple(column(path) if isinstance(path, str) else path for path in paths)


def cell(record: JsonValue, where: Column) -> str:
    """Return what a column shows of a record; `NOTHING` where the record has no such field."""
    value: JsonValue = record
    for name in where.path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return where.show(value)


def listing(answer: Answer, shown: Sequence[Column]) -> View:
    """Return the view of a list, with a note when there is more of it than was asked for."""
    records = answer.value if isinstance(answer.value, Sequence) and not isinstance(answer.value, str) else ()
    notes = []
    total = answer.total
    if total is not None and total > len(records):
        notes.append(f"{len(records)} of {total}; --page and --per-page show others, --all shows all")
    elif not records:
        notes.append("there is none")
    return View(
        value=answer.value,
        header=tuple(column.title for column in shown),
        rows=tuple(tuple(cell(record, column) for column in shown) for record in records),
        notes=tuple(notes),
    )


def single(value: JsonValue, shown: Sequence[Column] | None = None, *, notes: Iterable[str] = ()) -> View:
    """Return the view of one record, a line for each field: the columns given, or all fields of the record."""
    if shown is None:
        shown = tuple(column(name) for name in value) if isinstance(value, Mapping) else ()
    if not isinstance(value, Mapping):
        return View(value=value, rows=((("", plain(value))),) if value is not None else (), notes=tuple(notes))
    return View(value=value, rows=tuple((each.title, cell(value, each)) for each in shown), notes=tuple(notes))


def document(value: JsonValue) -> View:
    """Return the view of something that is shown as JSON in any case."""
    return View(value=value, is_document=True)


def done(note: str) -> View:
    """Return the view of something that has no answer but that it was done."""
    return View(value=None, notes=(note,))


def show(view: View, *, as_json: bool, quiet: bool = False) -> None:
    """Write a view: data to standard output, notes to standard error."""
    if as_json or view.is_document:
        write_out(json.dumps(view.value, indent=2) + "\n")
        return
    if view.text is not None:
        write_out(printable(view.text))
    elif view.rows:
        _write_table(view)
    if not quiet:
        for note in view.notes:
            sys.stderr.write(printable(note) + "\n")
        sys.stderr.flush()


def _write_table(view: View) -> None:
    from io import StringIO

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    text = StringIO()
    # A row is a line, for programs that read lines and for people who copy an identifier: nothing is folded.
    console = Console(file=text, highlight=False, force_terminal=terminal, width=_WIDE, no_color=not terminal)
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=bool(view.header))
    for title in view.header or ("", ""):
        table.add_column(title, overflow="fold")
    table.columns[0].no_wrap = True
    for row in view.rows:
        table.add_row(*(Text(printable(value)) for value in row))
    console.print(table)
    lines = text.getvalue().splitlines()
    write_out("".join(f"{line.rstrip()}\n" for line in lines))


def write_out(text: str) -> None:
    """Write to standard output; whoever stopped reading, as ``head`` does, has what it wants."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _reader_gone(sys.stdout)


def write_bytes(stream: TextIO, content: bytes) -> None:
    """Write bytes to standard output or standard error as they are; as `write_out` when nobody reads."""
    try:
        stream.buffer.write(content)
        stream.flush()
    except BrokenPipeError:
        _reader_gone(stream)


def _reader_gone(stream: TextIO) -> NoReturn:
    # Python would try to flush again when it ends, and complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    raise SystemExit(0) from None
