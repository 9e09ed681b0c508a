from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.cli.scripted_server import ScriptedServer

from metalmark.cli.report import milliseconds
from metalmark.model import InputError


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("list p --branch feature/x", ("GET", "/projects/p/reports", {"branch": "feature/x"}, None)),
        (
            "list p --testbed t --start-time 2026-01-31T10:00:00Z --archived",
            ("GET", "/projects/p/reports", {"testbed": "t", "start_time": "1769853600000", "archived": "true"}, None),
        ),
        ("list p --end-time 1 --expand", ("GET", "/projects/p/reports", {"end_time": "1000", "expand": "true"}, None)),
        ("view p r", ("GET", "/projects/p/reports/r", {}, None)),
        ("delete p r", ("DELETE", "/projects/p/reports/r", {}, None)),
    ],
)
def test_request_of_each_command(server: ScriptedServer, words: str, asked: object) -> None:
    server.run("report", *words.split())
    assert server.asked == [asked]


def test_report_of_a_run_elsewhere(server: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "output").write_bytes(b"second\xff\n")
    words = "create p --branch main --testbed t --start-time 0 --end-time 1970-01-01T02:00:01+02:00 --results first"
    server.run(
        "report", *words.split(), "--results-file", str(tmp_path / "output"), "--hash", "h", "--adapter", "json",
        "--fold", "min", "--start-point-branch", "b", "--start-point-reset",
    )  # fmt: skip
    body = {
        "branch": "main",
        "testbed": "t",
        "start_time": "1970-01-01T00:00:00+00:00",
        "end_time": "1970-01-01T00:00:01+00:00",
        "results": ["first", "second\ufffd\n"],
        "hash": "h",
        "start_point": {"branch": "b", "reset": True},
        "settings": {"adapter": "json", "fold": "min"},
    }
    assert server.asked == [("POST", "/projects/p/reports", {}, body)]


def test_results_that_are_not_there(server: ScriptedServer) -> None:
    words = "create p --branch main --testbed t --start-time 0 --end-time 1 --results-file /nonexistent"
    with pytest.raises(InputError, match="--results-file"):
        server.run("report", *words.split())
    assert server.requests == []


@pytest.mark.parametrize(
    ("text", "found"),
    [("0", 0), ("1970-01-01", 0), ("1970-01-01T00:00:01.5", 1500), ("1970-01-01T02:00:00+02:00", 0),
     ("1969-12-31T23:59:59Z", -1000)],
)  # fmt: skip
def test_instants(text: str, found: int) -> None:
    assert milliseconds(text, field="--start-time") == found


@pytest.mark.parametrize("text", ["", "soon", "9" * 13, "-1", "2026-13-01", "1e3"])
def test_what_is_no_instant(text: str) -> None:
    with pytest.raises(InputError, match="--end-time"):
        milliseconds(text, field="--end-time")
