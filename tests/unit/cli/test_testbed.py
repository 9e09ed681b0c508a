from __future__ import annotations

import pytest
from tests.unit.cli.scripted_server import ScriptedServer


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("list p --search x", ("GET", "/projects/p/testbeds", {"search": "x"}, None)),
        ("create p --name n --spec s", ("POST", "/projects/p/testbeds", {}, {"name": "n", "spec": "s"})),
        ("view p t --spec u", ("GET", "/projects/p/testbeds/t", {"spec": "u"}, None)),
        ("update p t --spec _", ("PATCH", "/projects/p/testbeds/t", {}, {"spec": None})),
        ("update p t --spec s --name n", ("PATCH", "/projects/p/testbeds/t", {}, {"name": "n", "spec": "s"})),
        ("delete p t", ("DELETE", "/projects/p/testbeds/t", {}, None)),
    ],
)  # fmt: skip
def test_request_of_each_command(server: ScriptedServer, words: str, asked: object) -> None:
    server.run("testbed", *words.split())
    assert server.asked == [asked]
