from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metalmark.cli.image import app
from metalmark.model import InputError, MetalmarkError
from metalmark.testing.images import FakeImage, write_layout


def run(*words: str | Path) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(autouse=True)
def home(metalmark_home: Path) -> Path:
    return metalmark_home


def test_packs_for_the_platform_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    told = json.loads(run("pack", tmp_path / "f", "-t", tmp_path / "a.tar", "--platform", "arm64", "--json"))
    found = json.loads(run("inspect", tmp_path / "a.tar", "--platform", "linux/arm64", "--json"))
    assert (found["digest"], found["platform"]) == (told["digest"], "linux/arm64/v8")


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ((), "--layout"),
        (("-o", "a", "-t", "b"), "--archive"),
        (("-o", "a", "--env", "=x"), "--env"),
        (("-o", "a", "--label", "x"), "--label"),
        (("-o", "a", "--compress", "xz"), "--compress"),
        (("-o", "a", "--workdir", "w"), "--workdir"),
    ],
)
def test_wrong_values_name_their_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], field: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        run("pack", "f", *words)
    assert caught.value.field == field
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f"]


def test_an_empty_cache_is_listed_and_collected() -> None:
    assert run("list") == "the cache is empty\n"
    assert json.loads(run("gc", "--json"))["images"]["freed_bytes"] == 0
    with pytest.raises(InputError, match="--max-size"):
        run("gc", "--max-size", "much")


def test_inspecting_a_folder_leaves_no_cache(tmp_path: Path, home: Path) -> None:
    layout = write_layout(tmp_path / "l", FakeImage(config={"User": "u"}))
    assert "user      u" in run("inspect", layout, "--platform", "amd64")
    assert not home.exists()


@pytest.mark.parametrize("command", ["list", "gc"])
def test_a_cache_that_cannot_be_used_is_told(home: Path, command: str) -> None:
    home.mkdir()
    (home / "cache").mkdir()
    (home / "cache/format-version").write_text("999\n")
    with pytest.raises(MetalmarkError, match="cache"):
        run(command)
