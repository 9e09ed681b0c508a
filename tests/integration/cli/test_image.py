"""``metalmark image`` as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from metalmark.testing.images import FakeImage, FakeLayer, index_of, tar_of, write_layout
from metalmark.testing.registry import Behaviour, StandInRegistry

START = [sys.executable, "-c", "from metalmark.cli.main import main; main()", "image"]


def image(home: Path, *words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "METALMARK_HOME": str(home / "home"), "HOME": str(home)}
    return subprocess.run(
        [*START, *map(str, words)], env=environment, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(b"#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_packs_and_inspects(program: Path, tmp_path: Path) -> None:
    packed = image(
        tmp_path, "pack", f"{program}:/opt/p", "--entrypoint", "/opt/p", "--entrypoint", "a b", "--env", "A=1=2",
        "--workdir", "/opt", "--label", "k=v", "-o", "out", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert packed.returncode == 0, packed.stderr
    told = json.loads(packed.stdout)
    assert told["path"] == str(tmp_path / "out")
    found = json.loads(image(tmp_path, "inspect", "out", "--json", cwd=tmp_path).stdout)
    assert found["digest"] == told["digest"]
    assert found["config"] == {
        "entrypoint": ["/opt/p", "a b"], "cmd": [], "env": ["A=1=2"], "workdir": "/opt", "user": "",
        "labels": {"k": "v"},
    }  # fmt: skip
    assert found["layers"][0]["diff_id"] == told["layer"]["diff_id"]
    text = image(tmp_path, "inspect", "oci:out:latest", cwd=tmp_path).stdout
    assert "entrypoint  /opt/p 'a b'" in text
    assert not (tmp_path / "home/cache").exists(), "looking at a folder needs no cache"


def test_packing_says_what_is_missing(program: Path, tmp_path: Path) -> None:
    for words, told in (
        (("pack", program), "-o FOLDER"),
        (("pack", program, "-o", tmp_path / "a", "-t", tmp_path / "b"), "names a place already"),
        (("pack", tmp_path / "none", "-o", tmp_path / "a"), "no such file"),
        (("pack", program, "-o", tmp_path / "a", "--env", "novalue"), "--env"),
        (("pack", program, "-o", tmp_path / "a", "--compress", "xz"), "--compress"),
        (("pack", program, "-o", tmp_path / "a", "--workdir", "rel"), "--workdir"),
        (("pack", program, "-o", tmp_path / "a", "--platform", "a/b/c/d"), "--platform"),
    ):
        done = image(tmp_path, *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert told in done.stderr
        assert "hint:" in done.stderr or told in ("no such file", "--env", "--workdir")
    assert not (tmp_path / "a").exists()


def test_bad_images_are_told_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not an image" * 100)
    arm = write_layout(tmp_path / "arm", FakeImage(architecture="arm64"))
    with StandInRegistry(Behaviour(users={"me": "pw"})) as registry:
        registry.push(FakeImage())
        for name, code, told in (
            ("/no/such", 1, "there is no file or folder /no/such"),
            (str(tmp_path / "text"), 1, "not a tar file"),
            ("alpine", 2, "docker.io/alpine"),
            (f"{registry.name}/app:x", 1, "anonymous"),
            (f"localhost/app@sha256:{'A' * 64}", 2, "lower-case"),
            (str(arm), 1, "linux/arm64"),
        ):
            words = ("inspect", name, "--platform", "linux/amd64")
            done = image(tmp_path, *words)
            assert (done.returncode, done.stdout) == (code, ""), done
            assert told in done.stderr
            assert "Traceback" not in done.stderr
    assert not (tmp_path / "home/cache").exists()


def test_an_index_shows_what_it_offers_and_gives_what_is_asked_for(tmp_path: Path) -> None:
    images = [FakeImage(architecture="amd64"), FakeImage(architecture="arm64", variant="v8")]
    layout = write_layout(tmp_path / "l", *images, index=index_of([fake.descriptor(platform=True) for fake in images]))
    told = json.loads(image(tmp_path, "inspect", layout, "--platform", "arm64", "--json").stdout)
    assert told["digest"] == str(images[1].manifest)
    assert told["platforms"] == ["linux/amd64", "linux/arm64/v8"]


def test_terminal_escapes_of_an_image_are_not_passed_on(tmp_path: Path) -> None:
    fake = FakeImage(config={"Labels": {"x\x1b[31m": "\x07\x9b"}, "Env": ["A=\x1b]0;t\x07"]})
    done = image(tmp_path, "inspect", write_layout(tmp_path / "l", fake), "--platform", "linux/amd64")
    assert done.returncode == 0
    assert not {"\x1b", "\x07", "\x9b"} & set(done.stdout)
    assert "\\x1b[31m" in done.stdout


def test_lists_and_collects(tmp_path: Path) -> None:
    pulled = """
import anyio, sys
from pathlib import Path
from metalmark.model import Platform
from metalmark.oci import ImageCache, parse_source, pull
async def main():
    with ImageCache(Path(sys.argv[1])) as cache:
        await pull(parse_source(sys.argv[2]), cache=cache, platform=Platform("linux", "amd64"))
anyio.run(main)
"""
    fake = FakeImage(layers=[FakeLayer.gzipped(tar_of({"f": b"f" * 1000}))])
    layout = write_layout(tmp_path / "l", fake)
    subprocess.run([sys.executable, "-c", pulled, tmp_path / "home/cache", layout], check=True)
    listed = json.loads(image(tmp_path, "list", "--json").stdout)
    (entry,) = listed["images"]
    assert (entry["digest"], entry["references"]) == (str(fake.manifest), [f"oci:{layout}"])
    assert entry["size_bytes"] == listed["stored_bytes"] == sum(map(len, fake.blobs.values()))
    assert str(fake.manifest)[:19] in image(tmp_path, "list").stdout
    would = json.loads(image(tmp_path, "gc", "--max-size", "0", "--dry-run", "--json").stdout)
    assert would["images"]["freed_bytes"] == listed["stored_bytes"]
    assert "removed 1," in image(tmp_path, "gc", "--max-size", "0").stdout
    assert json.loads(image(tmp_path, "list", "--json").stdout)["images"] == []
    assert image(tmp_path, "gc", "--max-size", "lots").returncode == 2


@pytest.mark.parametrize("command", ["pack", "inspect", "list", "gc"])
def test_every_command_teaches(tmp_path: Path, command: str) -> None:
    done = image(tmp_path, command, "--help")
    assert done.returncode == 0
    assert "--json" in done.stdout
