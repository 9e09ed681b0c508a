from __future__ import annotations

import pytest
from tests.unit.cli.scripted_server import ScriptedServer

from metalmark.model import InputError

START = "--start-point-hash h --start-point-max-versions 0 --start-point-clone-thresholds"


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("list p --archived", ("GET", "/projects/p/branches", {"archived": "true"}, None)),
        ("create p --name n", ("POST", "/projects/p/branches", {}, {"name": "n"})),
        (
            f"create p --name n --start-point-branch b {START}",
            (
                "POST",
                "/projects/p/branches",
                {},
                {"name": "n", "start_point": {"branch": "b", "hash": "h", "max_versions": 0, "clone_thresholds": True}},
            ),
        ),
        ("view p b --head u", ("GET", "/projects/p/branches/b", {"head": "u"}, None)),
        ("update p b --start-point-reset", ("PATCH", "/projects/p/branches/b", {}, {"start_point": {"reset": True}})),
        (
            "update p b --start-point-branch c --start-point-reset --archive",
            ("PATCH", "/projects/p/branches/b", {}, {"start_point": {"branch": "c", "reset": True}, "archived": True}),
        ),
        ("delete p b", ("DELETE", "/projects/p/branches/b", {}, None)),
    ],
)
def test_request_of_each_command(server: ScriptedServer, words: str, asked: object) -> None:
    server.run("branch", *words.split())
    assert server.asked == [asked]


def test_start_point_without_a_branch_is_wrong_usage(server: ScriptedServer) -> None:
    with pytest.raises(InputError, match="no start point"):
        server.run(*["branch", "create", "p", "--name", "n", "--start-point-hash", "h"])
    assert server.requests == []
