from __future__ import annotations

import pytest
from tests.unit.cli.scripted_server import ScriptedServer


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("list --search x", ("GET", "/organizations", {"search": "x"}, None)),
        ("create --name n", ("POST", "/organizations", {}, {"name": "n"})),
        ("view o", ("GET", "/organizations/o", {}, None)),
        ("update o --slug s", ("PATCH", "/organizations/o", {}, {"slug": "s"})),
        ("delete o --hard", ("DELETE", "/organizations/o", {"hard": "true"}, None)),
        ("claim o", ("POST", "/organizations/o/claim", {}, {})),
        ("allowed o --perm view", ("GET", "/organizations/o/allowed/view", {}, None)),
    ],
)  # fmt: skip
def test_request_of_each_command(server: ScriptedServer, words: str, asked: object) -> None:
    server.run("organization", *words.split())
    assert server.asked == [asked]


def test_short_name_of_the_group(server: ScriptedServer) -> None:
    server.run("org", "ls")
    assert server.asked == [("GET", "/organizations", {}, None)]
