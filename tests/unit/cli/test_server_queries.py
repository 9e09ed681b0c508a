from __future__ import annotations

import json

import pytest
from tests.unit.cli.scripted_server import ScriptedServer


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("spec", ("GET", "/server/spec", {}, None)),
        ("stats", ("GET", "/server/stats", {}, None)),
        ("config view", ("GET", "/server/config", {}, None)),
        ("config console", ("GET", "/server/config/console", {}, None)),
        ("backup", ("POST", "/server/backup", {}, {})),
        (
            "backup --compress --data-store aws_s3 --rm",
            ("POST", "/server/backup", {}, {"compress": True, "data_store": "aws_s3", "remove": True}),
        ),
    ],
)
def test_request_of_each_command(server: ScriptedServer, words: str, asked: object) -> None:
    server.run("server", *words.split())
    assert server.asked == [asked]


def test_tree_of_values_is_shown_leaf_by_leaf(server: ScriptedServer) -> None:
    server.answer({"server": {"bind": "x:1", "proxies": []}, "rows": [{"a": 1}], "smtp": None})
    out, _ = server.run("server", "config", "view")
    lines = [line.split() for line in out.splitlines()]
    assert lines == [["server.bind", "x:1"], ["server.proxies", "–"], ["rows[0].a", "1"], ["smtp", "–"]]


def test_description_of_the_interface_is_json(server: ScriptedServer) -> None:
    server.answer({"openapi": "3.1.0"})
    out, _ = server.run("server", "spec")
    assert json.loads(out) == {"openapi": "3.1.0"}


def test_version_needs_no_key(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METALMARK_API_KEY")
    out, _ = server.run("server", "version")
    assert out.split() == ["version", "0.6.12", "metalmark", "0"]
