"""What a user installs: sdist and wheel, built as for a release, in an environment of its own."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = ROOT / ".cache/uv/bin/uv"
ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
PROGRAM_INTERPRETER = 3
"""The type of the ELF program header that only a dynamic program has (elf(5), PT_INTERP)."""

pytestmark = pytest.mark.timeout(900)


def uv(*arguments: str | Path, cwd: Path) -> str:
    """Run uv and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(
        [UV, "--quiet", *arguments],
        cwd=cwd,
        check=False,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was made from the sdist alone."""
    if not UV.exists():
        pytest.skip("uv is not in .cache/uv (scripts/setup-python puts it there)")
    work = tmp_path_factory.mktemp("distribution")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=False, stdout=subprocess.PIPE).stdout
    if not tracked:
        pytest.skip("this is no git checkout, so nobody can say what belongs into an sdist")
    source = work / "source"
    for name in filter(None, tracked.decode().split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    uv("build", "--out-dir", work / "dist", cwd=source)
    return work / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds the wheel and what it depends on, and nothing else."""
    work = tmp_path_factory.mktemp("installed")
    uv("venv", "--python", sys.executable, work / "venv", cwd=work)
    uv("pip", "install", "--python", work / "venv/bin/python", wheel, cwd=work)
    return work / "venv/bin"


def test_the_wheel_is_for_every_machine(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")


@pytest.mark.parametrize("machine", ELF_MACHINES)
def test_the_wheel_holds_the_agent_of_each_architecture(wheel: Path, machine: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entry = archive.getinfo(f"metalmark/sandbox/agent/metalmark-agent-{machine}")
        program = archive.read(entry)
    assert program[:5] == b"\x7fELF\x02"
    assert struct.unpack_from("<H", program, 18) == (ELF_MACHINES[machine],)
    assert entry.external_attr >> 16 & 0o111 == 0o111
    (table,) = struct.unpack_from("<Q", program, 32)
    size, count = struct.unpack_from("<HH", program, 54)
    kinds = {struct.unpack_from("<I", program, table + size * index)[0] for index in range(count)}
    assert PROGRAM_INTERPRETER not in kinds, "the agent is not static"


def test_the_wheel_is_typed_and_has_no_strangers(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "metalmark/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"metalmark"}
    assert not [name for name in names if name.endswith((".pyc", ".c", ".partial"))]


def test_the_sdist_holds_what_a_build_and_the_tests_need(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    wanted = {"pyproject.toml", "uv.lock", "hatch_build.py", "LICENSE", "README.md", "guest/main.c", "scripts/test"}
    assert wanted - names == set()
    assert not [name for name in names if name.startswith((".cache", ".venv", ".git/"))]


def test_an_empty_environment_gets_a_working_command(installed: Path, tmp_path: Path) -> None:
    environment = {"PATH": f"{installed}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    shown = subprocess.run(["metalmark", "--version"], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert shown.stdout.startswith("metalmark ")
    root = tmp_path / "root"
    root.mkdir()
    (root / "nothing").write_text("")
    image = tmp_path / "image"
    subprocess.run(
        ["metalmark", "image", "pack", root, "--entrypoint", "/missing", "-o", image],
        env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    refused = subprocess.run(
        ["metalmark", "runner", "run", tmp_path / "no-such-image"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode not in (0, 1)
    assert "no-such-image" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_empty_environment_explains_every_line_of_the_doctor(installed: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs/howto/troubleshooting.md").read_text(encoding="utf-8")
    entries = dict(re.findall(r"^### `([a-z0-9-]+)`\n\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))
    environment = {"PATH": f"{installed}:/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}

    def explain(name: str) -> subprocess.CompletedProcess[str]:
        command = ["metalmark", "host", "doctor", "--explain", name]
        # Not in the checkout: what is there must not stand in for what was installed.
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    unknown = explain("no-such-line")
    assert unknown.returncode == 2
    assert all(name in unknown.stderr for name in entries)
    shown = explain("sandbox-qemu")
    assert (shown.returncode, shown.stdout) == (0, entries["sandbox-qemu"].strip() + "\n")


def test_an_empty_environment_runs_a_benchmark_in_a_microvm(
    installed: Path, home_with_kernel: Path, tmp_path: Path
) -> None:
    busybox = Path("/bin/busybox")
    if not busybox.exists():
        pytest.skip("busybox-static is not installed")
    environment = {
        "PATH": f"{installed}:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(tmp_path),
        "METALMARK_HOME": str(home_with_kernel),
        "LANG": "C.UTF-8",
    }
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy2(busybox, root / "busybox")
    commands = [
        ["image", "pack", root, "--entrypoint", "/busybox", "-o", tmp_path / "image"],
        ["runner", "run", tmp_path / "image", "--sandbox", "qemu", "--", "echo", "it works"],
    ]
    for command in commands:
        done = subprocess.run(
            ["metalmark", *command], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout == "it works\n"
