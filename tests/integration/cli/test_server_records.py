"""The commands that look after a server's records, against a server that runs."""

from __future__ import annotations

import re

import pytest
from tests.integration.cli.conftest import CommandLine

import metalmark
from metalmark.model import RequestRefused, ServerUnavailable

SPEC = ["--os", "linux", "--architecture", "x86_64", "--cpu", "2", "--memory", "4GiB", "--disk", "10GiB"]


def test_what_a_server_says_of_itself(command_line: CommandLine) -> None:
    version = command_line.json("server", "version")
    assert version == {"version": "0.6.12", "metalmark": metalmark.__version__}
    assert command_line.json("server", "config", "console")["url"]
    assert "secret_key" in command_line.json("server", "config", "view")["security"]
    assert command_line.json("server", "stats")["users"]
    assert command_line.json("server", "backup")["created"]
    assert "/v0/runners" in command_line.json("server", "spec")["paths"]
    out, _ = command_line.run("server", "config", "view")
    assert re.search(r"^server\.bind_address  +127\.0\.0\.1", out, re.MULTILINE)


def test_life_of_a_runner_and_its_specs(command_line: CommandLine) -> None:
    path = command_line.folder / "runner.key"
    out, err = command_line.run("runner", "create", "--name", "Rack 7", "--save-key", str(path))
    assert "uuid" in out
    assert re.fullmatch(r"bencher_runner_[0-9A-Za-z]{30}\n", path.read_text())
    spec = command_line.json("spec", "create", "--name", "Small VM", *SPEC, "--sandbox", "firecracker", "--fallback")
    assert (spec["slug"], spec["memory"], spec["sandbox"]) == ("small-vm", 4 * 1024**3, "firecracker")
    assert command_line.json("runner", "spec", "add", "rack-7", "--spec", "small-vm") == spec
    assert command_line.json("runner", "spec", "list", "rack-7") == [spec]
    runner = command_line.json("runner", "view", "rack-7")
    assert runner["specs"] == [spec["uuid"]]
    with pytest.raises(RequestRefused) as caught:
        command_line.run("spec", "delete", "small-vm")
    assert caught.value.status == 409
    assert caught.value.request_id
    assert command_line.json("runner", "spec", "remove", "rack-7", spec["uuid"]) is None
    _, err = command_line.run("spec", "delete", "small-vm")
    assert err == "spec small-vm is deleted\n"
    new = command_line.json("runner", "key", "rack-7")
    assert new["uuid"] == runner["uuid"]
    assert new["key"] != path.read_text().strip()
    assert command_line.json("runner", "update", "rack-7", "--archive")["archived"]
    assert command_line.json("runner", "list") == []
    out, _ = command_line.run("runner", "list", "--archived")
    assert "rack-7" in out
    assert command_line.json("runner", "update", "rack-7", "--unarchive", "--name", "Rack 8")["name"] == "Rack 8"


def test_pages_of_a_list(command_line: CommandLine) -> None:
    for number in range(12):
        command_line.json("spec", "create", "--name", f"Paged {number:02}", *SPEC)
    out, err = command_line.run("spec", "list", "--search", "paged")
    assert (out.count("paged-"), err) == (8, "8 of 12; --page and --per-page show others, --all shows all\n")
    every = command_line.json("spec", "list", "--search", "paged", "--all", "--direction", "desc")
    assert [spec["name"] for spec in every] == [f"Paged {number:02}" for number in reversed(range(12))]
    last = command_line.json("spec", "list", "--search", "paged", "--per-page", "5", "--page", "3")
    assert [spec["name"] for spec in last] == ["Paged 10", "Paged 11"]


def test_wrong_key_is_told_with_what_to_do(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METALMARK_API_KEY_FILE")
    monkeypatch.setenv("BENCHER_API_KEY", "bencher_user_" + "0" * 30)
    with pytest.raises(RequestRefused) as caught:
        command_line.run("runner", "list")
    assert (caught.value.status, "key create" in caught.value.hint) == (401, True)
    assert "0" * 30 not in str(caught.value)


def test_server_that_is_not_there(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerUnavailable, match="cannot be reached") as caught:
        command_line.run("runner", "list", "--host", "http://127.0.0.1:1", "--attempts", "1")
    assert "metalmark server up" in caught.value.hint
