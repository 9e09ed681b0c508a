"""What a run says of a repository, asked of git itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from metalmark.client import CONTEXT_KEYS, read_run_context

pytestmark = pytest.mark.anyio


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit."""
    folder = tmp_path / "widgets"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=trunk")
    person = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    git(folder, *person, "commit", "--quiet", "--allow-empty", "--message=First")
    return folder


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


async def test_a_repository_is_told(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")
    found = await read_run_context(repository, os.environ, warn=pytest.fail)
    told = {key.removeprefix(CONTEXT_KEYS): value for key, value in found.items()}
    assert (told["/repo/name"], told["/repo/hash"]) == ("widgets", head)
    assert (told["/branch/ref/name"], told["/branch/hash"]) == ("trunk", head)


async def test_a_repository_of_somebody_else_has_nothing_executed(repository: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    command = f"touch {mark}; git-upload-pack"
    for name, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": str(repository),
        "remote.origin.uploadpack": command,
        "protocol.file.allow": "always",
        "core.fsmonitor": f"touch {mark}",
    }.items():
        git(repository, "config", name, value)
    # A commit that is not there: git would have it fetched.
    (repository / ".git/refs/heads/trunk").write_text("1" * 40 + "\n")
    await read_run_context(repository, os.environ, warn=pytest.fail)
    assert not mark.exists()
