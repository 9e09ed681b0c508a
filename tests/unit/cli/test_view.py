from __future__ import annotations

import io
import json
import sys

import pytest

from metalmark.cli.view import NOTHING, View, cell, column, columns, count, document, listing, plain, show, single
from metalmark.client import Answer, JsonValue


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, NOTHING), ("", NOTHING), ([], NOTHING), (True, "yes"), (False, "no"), (0, "0"), ("x", "x"),
     (["a", "b"], "a, b"), ({"a": 1}, '{"a": 1}'), ([{"a": 1}], '[{"a": 1}]')],
)  # fmt: skip
def test_any_value_has_a_line(value: JsonValue, shown: str) -> None:
    assert plain(value) == shown


@pytest.mark.parametrize(
    ("path", "record", "shown"),
    [
        ("memory", {"memory": 4294967296}, "4.00 GiB"),
        ("memory", {"memory": True}, "yes"),
        ("created", {"created": "2026-01-31T10:00:00Z"}, "2026-01-31 10:00:00Z"),
        ("created", {"created": "2026-01-31T10:00:00.123456789Z"}, "2026-01-31 10:00:00Z"),
        ("created", {"created": "2026-01-31T10:00:00+02:00"}, "2026-01-31T10:00:00+02:00"),
        ("head.version.number", {"head": {"version": {"number": 6}}}, "6"),
        ("head.version.number", {"head": {"version": None}}, NOTHING),
        ("head.version.number", [], NOTHING),
    ],
)
def test_cell(path: str, record: JsonValue, shown: str) -> None:
    assert cell(record, column(path)) == shown


def test_count_of_a_list() -> None:
    assert [count(["a"]), count([]), count(None), count("text")] == ["1", "0", NOTHING, "text"]


def test_single_shows_all_fields_unless_told_which() -> None:
    assert single({"last_heartbeat": None, "b": 1}).rows == (("last heartbeat", NOTHING), ("b", "1"))
    assert single({"a": None, "b": 1}, columns("b")).rows == (("b", "1"),)
    assert single(None).rows == ()
    assert single("text").rows == (("", "text"),)


def test_list_of_anything_is_taken() -> None:
    assert listing(Answer(status=200, value={"not": "a list"}), columns("a")).rows == ()
    assert listing(Answer(status=200, value=[1, {"a": 2}]), columns("a")).rows == ((NOTHING,), ("2",))


def test_what_a_server_sends_does_not_reach_the_terminal_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show(View(value=["\x9b31m"], rows=(("a", "\x1b[31m[bold]"),), notes=("\x07",)), as_json=False)
    written = capsys.readouterr()
    assert (written.out, written.err) == ("a  \\x1b[31m[bold]\n", "\\x07\n")
    show(View(value=["\x9b31m\x1b"]), as_json=True)
    assert capsys.readouterr().out.isascii()


def test_row_is_one_line_for_programs_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    show(View(value=None, header=("a", "b"), rows=(("x" * 300, "y" * 300),)), as_json=False)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_document_is_json_for_people_too(capsys: pytest.CaptureFixture[str]) -> None:
    show(document({"openapi": "3"}), as_json=False)
    assert json.loads(capsys.readouterr().out) == {"openapi": "3"}


def test_reader_that_has_enough_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str, /) -> int:
            raise BrokenPipeError

        def fileno(self) -> int:
            return stream.fileno()

    with open("/dev/null", "w", encoding="ascii") as stream:  # noqa: PTH123 - any descriptor will do
        monkeypatch.setattr(sys, "stdout", Closed())
        with pytest.raises(SystemExit) as caught:
            show(View(value=1), as_json=True)
    assert caught.value.code == 0
