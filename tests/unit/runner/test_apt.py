from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from metalmark.model import NoPermission, StableError, TransientError
from metalmark.runner import apt as apt_module
from metalmark.runner.apt import Apt, Archive
from metalmark.system import Completed

pytestmark = pytest.mark.anyio


class Tools:
    """Answers for the package tools, in the order in which they are called."""

    def __init__(self, *answers: tuple[int, str, str]) -> None:
        self.answers = list(answers)
        self.argv: list[Sequence[str]] = []
        self.environments: list[Any] = []

    async def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
        self.argv.append(argv)
        self.environments.append(options.get("env"))
        returncode, stdout, stderr = self.answers.pop(0)
        return Completed(argv=tuple(argv), returncode=returncode, stdout=stdout.encode(), stderr=stderr.encode())


def answer(monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, str, str]) -> Tools:
    tools = Tools(*answers)
    monkeypatch.setattr(apt_module, "run", tools)
    monkeypatch.setattr(apt_module, "find_tool", lambda name: f"/usr/bin/{name}")
    return tools


async def test_installed_is_what_dpkg_calls_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(
        monkeypatch, (1, "runc installed\ncrun config-files\npasst half-installed\n", "no packages found matching x")
    )
    assert await Apt({}).installed(["runc", "crun", "passt", "x"]) == {"runc"}


async def test_candidates_leaves_out_what_cannot_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "runc:\n  Installed: (none)\n  Candidate: 1.1.5+ds1-1\n  Version table:\ncriu:\n  Candidate: (none)\n"
    answer(monkeypatch, (0, text, ""))
    assert await Apt({}).candidates(["runc", "criu"]) == {"runc": "1.1.5+ds1-1"}


async def test_depends_takes_direct_dependencies_of_every_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "m\n  Depends: linux-image-6.1\n |Depends: a\n  PreDepends: b\n  Recommends: c\n    nested\n"
    answer(monkeypatch, (0, text, ""))
    assert await Apt({}).depends("m") == ("linux-image-6.1", "a", "b")


async def test_tools_ask_nothing_and_speak_one_language(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = answer(monkeypatch, (0, "", ""))
    await Apt({"PATH": "/bin", "LC_ALL": "de_DE"}).install(["runc"])
    assert tools.environments[0] == {"PATH": "/bin", "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    assert tools.argv[0][-3:] == ["install", "--yes", "runc"]
    assert "APT::Install-Recommends=false" in tools.argv[0]


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        ("E: Could not open lock file - open (13: Permission denied)\nE: are you root?", NoPermission),
        ("E: Failed to fetch http://x  Could not connect to x:80", TransientError),
        ("E: Unable to locate package runcc", StableError),
        ("dpkg: error processing", StableError),
    ],
)
async def test_refusals_are_told_apart(monkeypatch: pytest.MonkeyPatch, stderr: str, kind: type[Exception]) -> None:
    answer(monkeypatch, (100, "", stderr))
    with pytest.raises(kind, match="apt-get install runc"):
        await Apt({}).install(["runc"])


async def test_lists_that_could_not_be_fetched_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "W: Failed to fetch http://x\nW: Some index files failed to download. They have been ignored\n"
    answer(monkeypatch, (0, "", text))
    with pytest.raises(TransientError):
        await Apt({}).update()


async def test_archives_are_read_from_uris(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "Reading lists...\n'http://d/p/runc_1%2bds_amd64.deb' runc_1+ds_amd64.deb 2709960 SHA256:ab\n'http://d/x' x 5\n"
    )
    tools = answer(monkeypatch, (0, text, ""))
    assert await Apt({}).archives(["runc"], complete=True) == (
        Archive(uri="http://d/p/runc_1%2bds_amd64.deb", file_name="runc_1+ds_amd64.deb", size_bytes=2709960),
        Archive(uri="http://d/x", file_name="x", size_bytes=5),
    )
    assert any(word.startswith("Dir::State::status=") for word in tools.argv[0])


async def test_a_download_ends_in_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer(monkeypatch, (0, "'http://d/runc' runc_1_amd64.deb 5\n", ""), (0, "", ""))
    assert await Apt({}).download(["runc"], tmp_path) == (tmp_path / "runc_1_amd64.deb",)
    answer(monkeypatch, (0, "'http://d/runc' runc_1_amd64.deb 5\n", ""), (100, "", "E: Failed to fetch"))
    with pytest.raises(TransientError):
        await Apt({}).download(["runc"], tmp_path)
