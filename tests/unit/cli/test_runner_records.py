from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.cli.scripted_server import ScriptedServer

from metalmark.model import InputError

KEY = "bencher_runner_0123456789abcdefghijABCDEFGHIJ"


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("list --name x --archived", ("GET", "/runners", {"name": "x", "archived": "true"}, None)),
        ("list --search y", ("GET", "/runners", {"search": "y"}, None)),
        ("view a/b", ("GET", "/runners/a%2Fb", {}, None)),
        ("get r", ("GET", "/runners/r", {}, None)),
        ("update r --slug s --archive", ("PATCH", "/runners/r", {}, {"slug": "s", "archived": True})),
        ("update r --name n", ("PATCH", "/runners/r", {}, {"name": "n"})),
        ("edit r --unarchive", ("PATCH", "/runners/r", {}, {"archived": False})),
        ("spec list r", ("GET", "/runners/r/specs", {}, None)),
        ("spec add r --spec s", ("POST", "/runners/r/specs", {}, {"spec": "s"})),
        ("spec rm r s", ("DELETE", "/runners/r/specs/s", {}, None)),
    ],
)  # fmt: skip
def test_request_of_each_command(server: ScriptedServer, words: str, asked: object) -> None:
    server.run("runner", *words.split())
    assert server.asked == [asked]


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("create", "--name", "Rack 7"), ("POST", "/runners", {}, {"name": "Rack 7"})),
        (("add", "--name", "n", "--slug", "s"), ("POST", "/runners", {}, {"name": "n", "slug": "s"})),
        (("key", "r"), ("POST", "/runners/r/key", {}, None)),
    ],
)
def test_new_key_is_shown_once(server: ScriptedServer, words: tuple[str, ...], asked: object) -> None:
    server.answer({"uuid": "u", "key": KEY}, status=201)
    out, err = server.run("runner", *words)
    assert server.asked == [asked]
    assert KEY in out
    assert "only now" in err


def test_runner_is_shown_with_what_it_proved(server: ScriptedServer) -> None:
    proof = {"proved": "2026-01-31T10:05:00Z", "version": "1", "sandboxes": ["none", "qemu"], "memory": 2**30}
    server.answer({"slug": "rack-7", "key_created": "2026-01-30T10:05:00Z", "proof": {**proof, "facts": {"a": "b"}}})
    out, _ = server.run("runner", "view", "rack-7")
    lines = dict(line.split("  ", 1) for line in out.splitlines())
    shown = {name.strip(): value.strip() for name, value in lines.items()}
    assert shown["key created"] == "2026-01-30 10:05:00Z"
    assert (shown["proved"], shown["sandboxes"]) == ("2026-01-31 10:05:00Z", "none, qemu")
    assert shown["memory"] == "1.00 GiB"
    assert "facts" not in out


def test_new_key_goes_into_a_file_instead(server: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "runner.key"
    server.answer({"uuid": "u", "key": KEY}, status=201)
    out, err = server.run("runner", "create", "--name", "n", "--save-key", str(path))
    assert (path.read_text(), path.stat().st_mode & 0o777) == (f"{KEY}\n", 0o600)
    assert KEY not in out + err


def test_nothing_is_made_when_its_key_could_not_be_kept(server: ScriptedServer, tmp_path: Path) -> None:
    for path in (tmp_path / "there", tmp_path / "no/folder"):
        (tmp_path / "there").touch()
        with pytest.raises(InputError, match="--save-key"):
            server.run("runner", "key", "r", "--save-key", str(path))
    assert server.requests == []


def test_change_of_nothing_is_wrong_usage(server: ScriptedServer) -> None:
    with pytest.raises(InputError, match="nothing is said"):
        server.run("runner", "update", "r")
    with pytest.raises(InputError, match="--unarchive is given too"):
        server.run("runner", "update", "r", "--archive", "--unarchive")
    assert server.requests == []
