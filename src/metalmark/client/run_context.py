"""Where a run is submitted from: repository, branch and commit of git or a CI, and the machine."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping
from pathlib import Path

from metalmark.model import MetalmarkError
from metalmark.system import find_tool, in_thread, run

CONTEXT_KEYS = "bencher.dev/v0"
"""What keys of a run's context begin with: the wire's own prefix."""

_GIT_S = 10.0
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_FINGERPRINT_LENGTH = 13
_SYSTEMS = {"Darwin": "macOS"}
_GIT_ENVIRONMENT = {"GIT_ALLOW_PROTOCOL": "", "GIT_TERMINAL_PROMPT": "0"}
"""Git fetches nothing: it would ask for objects that are missing with commands that the repository's own file names."""
_BRANCH_VARIABLES = (
    "GITHUB_HEAD_REF",
    "GITHUB_REF_NAME",
    "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME",
    "CI_COMMIT_REF_NAME",
)
"""Where a CI says which branch it has checked out without one: GitHub's and Gitea's names, then GitLab's."""


async def read_run_context(
    folder: Path, environment: Mapping[str, str], *, warn: Callable[[str], None]
) -> dict[str, str]:
    """Return a run's context, as the body of a run has it; what cannot be found out is left out.

    Args:
        folder: The repository, or a folder in it; an absolute path.
        environment: Of the process; a CI tells the branch there when git cannot.
        warn: Is told when there is a repository that git does not read.
    """
    found = {f"{CONTEXT_KEYS}/testbed/os": _SYSTEMS.get(platform.system(), platform.system())}
    if fingerprint := await in_thread(_fingerprint, Path("/etc/machine-id")):
        found[f"{CONTEXT_KEYS}/testbed/fingerprint"] = fingerprint
    repository = await _repository(folder, {**environment, **_GIT_ENVIRONMENT}, warn)
    branch = repository.pop("/branch/ref/name", "") or next(
        (environment[name] for name in _BRANCH_VARIABLES if environment.get(name)), ""
    )
    if branch and repository:
        repository["/branch/ref/name"] = branch
    return found | {f"{CONTEXT_KEYS}{path}": value for path, value in repository.items() if value}


async def _repository(folder: Path, environment: Mapping[str, str], warn: Callable[[str], None]) -> dict[str, str]:
    async def ask(*words: str) -> str:
        return await _git(folder, environment, *words)

    top = await ask("rev-parse", "--show-toplevel")
    if not top:
        found = await in_thread(_marked, folder)
        if found is not None:
            # Above all a repository of another user, as containers of a CI have it.
            warn(f"git does not read {found}, so the run tells neither branch nor commit; see `git -C {found} status`")
        return {}
    reference = await ask("symbolic-ref", "--quiet", "HEAD")
    roots = await ask("rev-list", "--max-parents=0", "--first-parent", "HEAD")
    return {
        "/repo/name": Path(top).name or "root",
        "/repo/hash": roots.splitlines()[-1] if roots else "",
        "/branch/ref": reference,
        "/branch/ref/name": reference.removeprefix("refs/heads/"),
        "/branch/hash": await ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}"),
    }


def _marked(folder: Path) -> Path | None:
    return next((place for place in (folder, *folder.parents) if (place / ".git").exists()), None)


async def _git(folder: Path, environment: Mapping[str, str], *words: str) -> str:
    """Return what git says; empty when it says nothing, is not there, or takes too long."""
    try:
        done = await run([find_tool("git"), "-C", str(folder), *words], timeout_s=_GIT_S, env=environment)
    except MetalmarkError:
        return ""
    return done.stdout.decode("utf-8", errors="replace").strip() if done.returncode == 0 else ""


def _fingerprint(machine_id: Path) -> str:
    """Return 13 characters that stand for this machine; not its identifier, which is nobody else's business."""
    try:
        text = machine_id.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
    if not text:
        return ""
    number = int.from_bytes(hashlib.sha256(f"metalmark run context {text}".encode()).digest()[:8], "big")
    digits = ""
    for _ in range(_FINGERPRINT_LENGTH):
        number, rest = divmod(number, 36)
        digits = _DIGITS[rest] + digits
    return digits
