"""Versions made from real wheels by the real pip, without a network; and of the install that runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.runner.artifact_variants import variant

import metalmark
from metalmark.model import MetalmarkError, ProtocolError, StableError
from metalmark.runner import Installation, InstalledVersion
from metalmark.runner.version_folder import artifact_checksum, install_artifact, install_copy

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(900)]

UP = ("runner", "up", "--drain-timeout", "60")


def said(program: Path, *words: str) -> str:
    done = subprocess.run([program, *words], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def installed(update_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An install of the artifact, made by a process that has no network at all where that can be had."""
    root = tmp_path_factory.mktemp("opt") / "metalmark"
    checksum = artifact_checksum(update_artifact)
    code = (
        "import anyio, pathlib, sys\n"
        "from metalmark.runner import Installation\n"
        "from metalmark.runner.version_folder import install_artifact\n"
        "async def main():\n"
        "    installation = Installation(pathlib.Path(sys.argv[1]))\n"
        "    arguments = sys.argv[4:]\n"
        "    found = await install_artifact(installation, pathlib.Path(sys.argv[2]), checksum=sys.argv[3],"
        " arguments=arguments)\n"
        "    installation.switch(found.name)\n"
        "anyio.run(main)\n"
    )
    # Whatever pip would read of the environment leads nowhere, too.
    environment = {**os.environ, "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_NO_INDEX": "0", "PYTHONPATH": "/nowhere"}
    alone = ["unshare", "--net"] if os.geteuid() == 0 else []
    subprocess.run(
        [*alone, sys.executable, "-c", code, str(root), str(update_artifact), checksum, *UP],
        check=True, timeout=600, env=environment,
    )  # fmt: skip
    return Installation(root)


async def test_an_artifact_becomes_a_version_that_needs_nothing_else(
    installed: Installation, update_artifact: Path
) -> None:
    version = installed.current()
    assert version is not None
    assert (version.version, version.checksum) == (metalmark.__version__, artifact_checksum(update_artifact))
    program = installed.program(version.name)
    assert said(program, "--version") == f"metalmark {metalmark.__version__}"
    where = said(program.with_name("python"), "-c", "import metalmark; print(metalmark.__file__)")
    assert Path(where).is_relative_to(installed.folder(version.name))
    assert said(installed.launcher, "--version") == f"metalmark {metalmark.__version__}"
    assert not list(installed.root.glob("metalmark-work-*"))


async def test_the_same_artifact_is_installed_once(installed: Installation, update_artifact: Path) -> None:
    version = installed.current()
    assert version is not None
    before = installed.program(version.name).stat().st_mtime_ns
    again = await install_artifact(installed, update_artifact, checksum=version.checksum or "", arguments=UP)
    assert again == version
    assert installed.program(version.name).stat().st_mtime_ns == before


async def refused(
    installation: Installation, artifact: Path, *, checksum: str = "", words: tuple[str, ...] = UP
) -> str:
    """Return why an artifact is not installed, with nothing of it left and the current version untouched."""
    before, folders = installation.current(), sorted((installation.root / "versions").iterdir())
    with pytest.raises(MetalmarkError) as caught:
        await install_artifact(
            installation, artifact, checksum=checksum or artifact_checksum(artifact), arguments=words
        )
    assert isinstance(caught.value, (StableError, ProtocolError))
    assert installation.current() == before
    assert sorted((installation.root / "versions").iterdir()) == folders
    assert not list(installation.root.glob("metalmark-work-*"))
    return str(caught.value)


async def test_another_checksum_is_refused(installed: Installation, update_artifact: Path) -> None:
    assert "checksum" in await refused(installed, update_artifact, checksum="0" * 64)


async def test_a_version_that_cannot_be_loaded_is_refused(
    installed: Installation, update_artifact: Path, tmp_path: Path
) -> None:
    broken = variant(update_artifact, tmp_path / "a.tar", "7.1", {"metalmark/runner/link.py": ("import", "impart")})
    assert "SyntaxError" in await refused(installed, broken)


async def test_a_version_that_does_not_know_the_command_line_is_refused(
    installed: Installation, update_artifact: Path, tmp_path: Path
) -> None:
    other = variant(update_artifact, tmp_path / "a.tar", "7.2")
    assert "--frobnicate" in await refused(installed, other, words=(*UP, "--frobnicate"))


async def test_a_version_that_is_not_what_the_artifact_says_is_refused(
    installed: Installation, update_artifact: Path, tmp_path: Path
) -> None:
    lying = {"metalmark/cli/main.py": ("metalmark {", "metalmark 0{")}
    try:
        other = variant(update_artifact, tmp_path / "a.tar", "7.3", lying)
    except AssertionError:
        pytest.skip("the program says its version in another place")
    assert "it should be 7.3" in await refused(installed, other)


async def test_an_artifact_for_another_python_is_refused(
    installed: Installation, update_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metalmark.runner.version_folder._python", lambda: "3.99")
    assert "3.99" in await refused(installed, update_artifact)


async def test_damage_is_noticed(installed: Installation, update_artifact: Path, tmp_path: Path) -> None:
    content = bytearray(update_artifact.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.tar").write_bytes(content)
    assert "checksum" in await refused(installed, tmp_path / "a.tar")


async def test_an_install_can_be_copied(installed: Installation, tmp_path: Path) -> None:
    version = installed.current()
    assert version is not None
    code = (
        "import anyio, json, pathlib, sys\n"
        "from metalmark.runner import Installation\n"
        "from metalmark.runner.version_folder import install_copy\n"
        "async def main():\n"
        "    found = await install_copy(Installation(pathlib.Path(sys.argv[1])), arguments=sys.argv[2:])\n"
        "    print(json.dumps([found.name, found.version, found.checksum]))\n"
        "anyio.run(main)\n"
    )
    python = installed.program(version.name).with_name("python")
    name, number, checksum = json.loads(said(python, "-c", code, str(tmp_path / "opt"), *UP))
    assert (number, checksum) == (metalmark.__version__, None)
    copy = Installation(tmp_path / "opt")
    assert copy.versions() == [InstalledVersion(name=name, version=number, checksum=None)]
    where = said(copy.program(name).with_name("python"), "-c", "import metalmark; print(metalmark.__file__)")
    assert Path(where).is_relative_to(copy.folder(name))
    assert said(copy.program(name), "--version") == f"metalmark {metalmark.__version__}"


async def test_a_checkout_is_not_copied(tmp_path: Path) -> None:
    if not Path(metalmark.__file__).is_relative_to(Path(__file__).parents[3]):
        pytest.skip("this Metalmark runs from no checkout")
    with pytest.raises(StableError, match="checkout"):
        await install_copy(Installation(tmp_path / "opt"))
    assert not (tmp_path / "opt").exists()
