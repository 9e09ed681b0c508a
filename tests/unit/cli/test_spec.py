from __future__ import annotations

import pytest
from tests.unit.cli.scripted_server import ScriptedServer

from metalmark.model import InputError

NEEDED = "--name n --os linux --architecture x86_64 --cpu 2"


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("list --archived", ("GET", "/specs", {"archived": "true"}, None)),
        (
            f"create {NEEDED} --memory 4GiB --disk 10000",
            (
                "POST",
                "/specs",
                {},
                {
                    "name": "n",
                    "os": "linux",
                    "architecture": "x86_64",
                    "cpu": 2,
                    "memory": 4294967296,
                    "disk": 10000,
                    "network": False,
                    "fallback": False,
                },
            ),
        ),
        (
            f"add {NEEDED} --memory 4294967296 --disk 10kB --slug s --sandbox microvm --network --fallback --anonymous",
            (
                "POST",
                "/specs",
                {},
                {
                    "name": "n",
                    "os": "linux",
                    "architecture": "x86_64",
                    "cpu": 2,
                    "memory": 4294967296,
                    "disk": 10000,
                    "network": True,
                    "fallback": True,
                    "slug": "s",
                    "sandbox": "microvm",
                    "anonymous": True,
                },
            ),
        ),
        ("view s", ("GET", "/specs/s", {}, None)),
        ("update s --fallback false", ("PATCH", "/specs/s", {}, {"fallback": False})),
        ("update s --anonymous false", ("PATCH", "/specs/s", {}, {"anonymous": False})),
        (
            "update s --fallback true --name n --unarchive",
            ("PATCH", "/specs/s", {}, {"name": "n", "fallback": True, "archived": False}),
        ),
        ("rm s", ("DELETE", "/specs/s", {}, None)),
    ],
)
def test_request_of_each_command(server: ScriptedServer, words: str, asked: object) -> None:
    server.run("spec", *words.split())
    assert server.asked == [asked]


def test_size_that_is_none_is_wrong_usage(server: ScriptedServer) -> None:
    with pytest.raises(InputError, match="--memory"):
        server.run(
            *[
                "spec",
                "create",
                "--name",
                "n",
                "--os",
                "linux",
                "--architecture",
                "x86_64",
                "--cpu",
                "2",
                "--memory",
                "much",
                "--disk",
                "1",
            ]
        )
    assert server.requests == []
