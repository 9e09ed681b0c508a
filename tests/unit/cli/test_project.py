from __future__ import annotations

import pytest
from tests.unit.cli.scripted_server import ScriptedServer


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("list", ("GET", "/projects", {}, None)),
        ("list o --name n", ("GET", "/organizations/o/projects", {"name": "n"}, None)),
        ("create o --name n", ("POST", "/organizations/o/projects", {}, {"name": "n", "visibility": "public"})),
        (
            "add o --name n --slug s --url http://x --visibility private",
            (
                "POST",
                "/organizations/o/projects",
                {},
                {"name": "n", "slug": "s", "url": "http://x", "visibility": "private"},
            ),
        ),
        ("view p", ("GET", "/projects/p", {}, None)),
        ("update p --url _", ("PATCH", "/projects/p", {}, {"url": None})),
        (
            "update p --url http://x --visibility public",
            ("PATCH", "/projects/p", {}, {"visibility": "public", "url": "http://x"}),
        ),
        ("delete p", ("DELETE", "/projects/p", {}, None)),
        ("rm p --hard", ("DELETE", "/projects/p", {"hard": "true"}, None)),
        ("allowed p --perm create_role", ("GET", "/projects/p/allowed/create_role", {}, None)),
        ("key ls p --revoked", ("GET", "/projects/p/keys", {"revoked": "true"}, None)),
        ("key revoke p k", ("DELETE", "/projects/p/keys/k", {}, None)),
    ],
)
def test_request_of_each_command(server: ScriptedServer, words: str, asked: object) -> None:
    server.run("project", *words.split())
    assert server.asked == [asked]
