from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.runner.surroundings import surroundings

from metalmark.model import InputError, JobSpec
from metalmark.runner import RunObserver, RunRecord, check_target, execute, save_run
from metalmark.runner.saved_run import harmless
from metalmark.testing.fake_sandbox import FakeCommand, FakeDriver

pytestmark = pytest.mark.anyio


async def record(folder: Path, *commands: FakeCommand, **changes: object) -> RunRecord:
    spec = replace(JobSpec(image="fake", outputs=("*",)), **changes)  # type: ignore[arg-type]
    return await execute(spec, context=surroundings(folder, FakeDriver(*commands)), observer=RunObserver())


def renamed(record: RunRecord, names: list[str]) -> RunRecord:
    """A record of one iteration with other paths of the output files, also such as no archive brings."""
    iteration = record.iterations[0]
    files = tuple(replace(file, path=name) for file, name in zip(iteration.collected.files, names, strict=True))
    changed = replace(iteration, collected=replace(iteration.collected, files=files))
    return replace(record, iterations=(changed,))


async def test_everything_is_kept_and_named(tmp_path: Path) -> None:
    command = FakeCommand(stdout=[b"out\xff"], stderr=[b"err"], files={"/out/a.json": b"{}", "/out/b": b"\xff"})
    save_run(await record(tmp_path, command, iterations=2), tmp_path / "kept")
    result = json.loads((tmp_path / "kept/result.json").read_text())
    assert [iteration["stdout"]["saved"] for iteration in result["iterations"]] == [
        "iteration-1/stdout", "iteration-2/stdout",
    ]  # fmt: skip
    assert (tmp_path / "kept/iteration-2/stdout").read_bytes() == b"out\xff"
    assert (tmp_path / "kept/iteration-1/output/out/b").read_bytes() == b"\xff"
    assert result["iterations"][0]["output"]["files"][0]["saved"] == "iteration-1/output/out/a.json"
    assert result["iterations"][0]["stdout"]["text"] is None


async def test_hostile_names_stay_inside_and_lose_nothing(tmp_path: Path) -> None:
    names = [
        "/../../../etc/passwd",
        "/a",
        "/a/b",
        "/a//b",
        "/..",
        "/x" * 100,
        "/\x1b[2J",
        "/c\udcff",
        "/.",
        "/~",
        "/-rf",
    ]
    names.append("/" + "/".join(["ü" * 63] * 31))
    files = {f"/{number:02}": f"{number}".encode() for number in range(len(names))}
    saved = renamed(await record(tmp_path, FakeCommand(files=files)), names)
    save_run(saved, tmp_path / "kept")
    result = json.loads((tmp_path / "kept/result.json").read_text())
    places = [file["saved"] for file in result["iterations"][0]["output"]["files"]]
    assert len(set(places)) == len(saved.iterations[0].collected.files) == len(names)
    root = tmp_path / "kept/iteration-1/output"
    for place, collected in zip(places, saved.iterations[0].collected.files, strict=True):
        target = tmp_path / "kept" / place
        assert root in target.parents
        assert target.resolve() == target
        assert target.read_bytes() == collected.kept.read_bytes()


@given(st.text(min_size=1).filter(lambda text: "/" not in text))
def test_harmless_name_is_one_plain_component(name: str) -> None:
    safe = harmless(name.replace("\0", ""))
    assert safe
    assert safe not in {".", ".."}
    assert "/" not in safe
    assert safe.isascii()
    assert safe.isprintable()
    assert len(safe) <= 255


async def test_failure_leaves_nothing(tmp_path: Path) -> None:
    saved = await record(tmp_path, FakeCommand(stdout=[b"x"]))
    (saved.iterations[0].folder / "stderr").unlink()
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        save_run(saved, tmp_path / "kept")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


async def test_folder_that_was_filled_meanwhile_is_not_touched(tmp_path: Path) -> None:
    saved = await record(tmp_path, FakeCommand())
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/theirs").touch()
    with pytest.raises(InputError, match="--save"):
        save_run(saved, tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["theirs"]


def test_target_is_checked_before_the_run(tmp_path: Path) -> None:
    check_target(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty")
    (tmp_path / "file").touch()
    for bad in (tmp_path / "file", tmp_path, tmp_path / "none/below", Path("/proc/x") if os.geteuid() else tmp_path):
        with pytest.raises(InputError, match="--save"):
            check_target(bad)
