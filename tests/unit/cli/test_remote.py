from __future__ import annotations

import json
from importlib import import_module

import httpx
import pytest
from tests.unit.cli.scripted_server import ScriptedServer

from metalmark import wire
from metalmark.cli import remote
from metalmark.cli.application import GROUPS
from metalmark.model import ProtocolError, RequestRefused, StableError

RUNNER = {"uuid": "0197a1", "slug": "rack-7", "name": "Rack 7", "specs": ["a", "b"], "archived": None}


def test_table_on_stdout_and_what_else_there_is_on_stderr(server: ScriptedServer) -> None:
    server.answer([RUNNER], total=23)
    out, err = server.run("runner", "list")
    lines = out.splitlines()
    assert lines[0].split() == ["slug", "name", "specs", "last", "heartbeat", "archived", "uuid"]
    assert lines[1].split() == ["rack-7", "Rack", "7", "2", "–", "–", "0197a1"]
    assert err == "1 of 23; --page and --per-page show others, --all shows all\n"


def test_json_is_the_answer_and_nothing_else(server: ScriptedServer) -> None:
    server.answer([RUNNER], total=23)
    out, err = server.run("runner", "list", "--json")
    assert (json.loads(out), err) == ([RUNNER], "")


def test_paging_goes_to_the_server(server: ScriptedServer) -> None:
    server.answer([], total=0)
    _, err = server.run(
        "runner", "ls", "--sort", "created", "--direction", "desc", "--per-page", "3", "--page", "2"
    )  # fmt: skip
    query = {"sort": "created", "direction": "desc", "per_page": "3", "page": "2"}
    assert server.asked == [("GET", "/runners", query, None)]
    assert err == "there is none\n"


def test_all_pages_are_fetched_to_the_first_that_is_not_full(server: ScriptedServer) -> None:
    server.answer([RUNNER] * 255, total=300)
    server.answer([RUNNER] * 45, total=300)
    out, err = server.run("runner", "list", "--all", "--json")
    assert [query["page"] for _, _, query, _ in server.asked] == ["1", "2"]
    assert (len(json.loads(out)), err) == (300, "")


@pytest.mark.parametrize(
    "words",
    [("--sort", "size"), ("--direction", "up"), ("--per-page", "256"), ("--page", "-1"), ("--timeout", "0"),
     ("--attempts", "0"), ("--retry-after", "901"), ("--nonsense",)],
)  # fmt: skip
def test_flag_out_of_bounds_is_wrong_usage(server: ScriptedServer, words: tuple[str, ...]) -> None:
    with pytest.raises(Exception) as caught:
        server.run("runner", "list", *words)
    assert getattr(caught.value, "exit_code", None) == 2
    assert server.requests == []


def test_without_credential_nothing_is_sent(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METALMARK_API_KEY")
    with pytest.raises(StableError, match="no credential"):
        server.run("runner", "list")
    assert server.requests == []
    server.answer([])
    server.run("project", "list")
    assert "authorization" not in server.requests[0].headers


def test_key_in_the_command_is_taken_with_a_warning_and_not_repeated(server: ScriptedServer) -> None:
    key = "bencher_run_0123456789abcdefghijABCDEFGHIJ"
    _, err = server.run("project", "view", "p", "--key", key)
    assert server.requests[0].headers["authorization"] == f"Bearer {key}"
    assert "warning: " in err
    assert key not in err


def test_key_that_would_cross_a_network_in_clear_text_is_warned_of(server: ScriptedServer) -> None:
    _, err = server.run("project", "view", "p", "--host", "http://bench.example.com")
    assert "without encryption" in err
    assert server.requests[0].url.host == "bench.example.com"


def test_other_version_is_warned_of(server: ScriptedServer) -> None:
    server.version = "0.7.0"
    _, err = server.run("project", "view", "p")
    assert "speaks version 0.7.0" in err


def test_quiet_says_nothing(server: ScriptedServer) -> None:
    server.version = "0.7.0"
    server.answer([RUNNER], total=23)
    out, err = server.run("--quiet", "runner", "list")
    assert (out.count("rack-7"), err) == (1, "")
    server.run("--version")


def test_refusal_is_an_error_with_the_number_of_the_request(server: ScriptedServer) -> None:
    server.answer({"request_id": "r-1", "message": "not for you"}, status=403)
    with pytest.raises(RequestRefused, match=r"not for you .request r-1"):
        server.run("runner", "list")


def test_each_failed_attempt_is_told(server: ScriptedServer) -> None:
    server.replies = [httpx.Response(500), httpx.Response(200, json=[])]
    _, err = server.run("runner", "list", "--attempts", "2")
    assert "attempt 1 of 2, the next in 1 s" in err


def test_every_command_has_help_that_names_its_flags_first(server: ScriptedServer) -> None:
    out, _ = server.run("spec", "create", "--help")
    assert out.index("--fallback") < out.index("Connection:") < out.index("--host")
    assert "--json" in out


def test_strict_holds_an_answer_to_the_reference(server: ScriptedServer) -> None:
    server.answer([RUNNER])
    server.run("runner", "list")
    server.answer([RUNNER])
    with pytest.raises(ProtocolError, match="--strict"):
        server.run("runner", "list", "--strict")


def test_every_promised_body_is_one_of_the_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    promised: set[str] = set()
    monkeypatch.setattr(remote, "_carry_out", lambda *words, answers, **rest: promised.add(answers))
    for group, (module, _) in GROUPS.items():
        if group in ("image", "host"):
            continue
        for info in import_module(module).app.registered_commands:
            if info.cls is remote.RemoteCommand:
                info.callback(as_json=False)
    assert len(promised) > 10
    assert [name for name in promised if name and not hasattr(wire, name.removesuffix("[]"))] == []
