from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import anyio
import pytest

from metalmark.client import CONTEXT_KEYS, read_run_context, run_context
from metalmark.system import Completed
from metalmark.wire import CONTEXT_PREFIX

HEAD = "6b1f0c9d2e3a4b5c6d7e8f90112233445566778a"


@pytest.fixture
def git(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What git answers, by its sub-command; it fails where there is nothing."""
    said: dict[str, str] = {}

    async def run(argv: list[str], *, timeout_s: float, env: Mapping[str, str]) -> Completed:
        del timeout_s
        assert env["GIT_ALLOW_PROTOCOL"] == ""
        words = " ".join(argv[3:])
        found = next((text for start, text in said.items() if words.startswith(start)), None)
        code = 0 if found is not None else 128
        return Completed(argv=tuple(argv), returncode=code, stdout=f"{found or ''}\n".encode(), stderr=b"")

    monkeypatch.setattr(run_context, "run", run)
    monkeypatch.setattr(run_context, "find_tool", lambda name: f"/usr/bin/{name}")
    return said


@pytest.fixture
def warned() -> list[str]:
    return []


def context(
    environment: dict[str, str] | None = None, *, folder: Path = Path("/nowhere"), warned: list[str] | None = None
) -> dict[str, str]:
    heard: list[str] = [] if warned is None else warned
    found = anyio.run(partial(read_run_context, folder, environment or {}, warn=heard.append))
    return {key.removeprefix(CONTEXT_KEYS): value for key, value in found.items()}


def test_keys_are_those_of_the_wire() -> None:
    assert CONTEXT_KEYS == CONTEXT_PREFIX


def test_repository_is_told_as_git_has_it(git: dict[str, str]) -> None:
    git |= {
        "rev-parse --show-toplevel": "/home/ada/widgets",
        "symbolic-ref": "refs/heads/feature/x",
        "rev-list": "1" * 40,
        "rev-parse --verify": HEAD,
    }
    found = context({"GITHUB_REF_NAME": "other"})
    assert found["/repo/name"] == "widgets"
    assert found["/repo/hash"] == "1" * 40
    assert (found["/branch/ref"], found["/branch/ref/name"]) == ("refs/heads/feature/x", "feature/x")
    assert found["/branch/hash"] == HEAD
    assert found["/testbed/os"] == "Linux"


@pytest.mark.parametrize(
    ("environment", "branch"),
    [
        ({"GITHUB_HEAD_REF": "fix", "GITHUB_REF_NAME": "12/merge"}, "fix"),
        ({"GITHUB_HEAD_REF": "", "GITHUB_REF_NAME": "main"}, "main"),
        ({"CI_COMMIT_REF_NAME": "dev"}, "dev"),
        ({}, None),
    ],
)
def test_branch_of_a_ci_that_checked_out_none(git: dict[str, str], environment: dict[str, str], branch: str) -> None:
    git |= {"rev-parse --show-toplevel": "/w", "rev-parse --verify": HEAD}
    assert context(environment).get("/branch/ref/name") == branch


def test_without_a_repository_the_machine_alone_is_told(git: dict[str, str]) -> None:
    found = context({"GITHUB_REF_NAME": "main"})
    assert set(found) <= {"/testbed/os", "/testbed/fingerprint"}


def test_repository_that_git_does_not_read_is_warned_of(git: dict[str, str], warned: list[str], tmp_path: Path) -> None:
    inner = tmp_path / "src"
    (tmp_path / ".git").mkdir()
    inner.mkdir()
    assert "/repo/name" not in context(folder=inner, warned=warned)
    [told] = warned
    assert f"git does not read {tmp_path}," in told


def test_fingerprint_is_stable_and_not_the_machines_identifier(tmp_path: Path) -> None:
    machine = tmp_path / "machine-id"
    machine.write_text("0123456789abcdef0123456789abcdef\n")
    print_of = run_context._fingerprint(machine)
    assert len(print_of) == 13
    assert print_of.isalnum()
    assert print_of == run_context._fingerprint(machine)
    machine.write_text("f" * 32)
    assert print_of != run_context._fingerprint(machine)
    assert run_context._fingerprint(tmp_path / "none") == ""
