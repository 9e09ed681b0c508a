from __future__ import annotations

import pytest
from tests.unit.cli.scripted_server import ScriptedServer


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("list o", ("GET", "/organizations/o/members", {}, None)),
        ("invite o --email a@x.org", ("POST", "/organizations/o/members", {}, {"email": "a@x.org", "role": "leader"})),
        (
            "invite o --email a@x.org --role member --name A",
            ("POST", "/organizations/o/members", {}, {"email": "a@x.org", "role": "member", "name": "A"}),
        ),
        ("view o u", ("GET", "/organizations/o/members/u", {}, None)),
        ("update o u --role member", ("PATCH", "/organizations/o/members/u", {}, {"role": "member"})),
        ("remove o u", ("DELETE", "/organizations/o/members/u", {}, None)),
    ],
)
def test_request_of_each_command(server: ScriptedServer, words: str, asked: object) -> None:
    server.run("member", *words.split())
    assert server.asked == [asked]
