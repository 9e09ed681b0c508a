"""``metalmark image push`` and ``remove`` into a running server's registry, and jobs of what was pushed."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from uuid import UUID

import anyio
import pytest
from tests.integration.cli.conftest import CommandLine

from metalmark.model import ImageNotFound, InputError, Platform, RegistryDenied
from metalmark.oci import ImageCache, RegistryAccess, parse_source, pull
from metalmark.server import ServerContext
from metalmark.store import JobRecord, find_job
from metalmark.testing.images import FakeImage, FakeLayer, index_of, tar_of, write_layout

AMD64 = Platform("linux", "amd64")
numbers = itertools.count(1)


def layout_of(folder: Path, *, architecture: str = "amd64") -> tuple[Path, FakeImage]:
    layers = [FakeLayer.plain(tar_of({f"f{number}": os.urandom(10_000)})) for number in range(3)]
    made = FakeImage(layers=layers, architecture=architecture)
    return write_layout(folder / f"layout{next(numbers)}", made), made


def pulled(command_line: CommandLine, name: str) -> str:
    registry = command_line.server.url.partition("://")[2]
    access = RegistryAccess(token=command_line.server.admin_key, certs_folders=())

    async def take() -> str:
        with ImageCache(command_line.folder / f"cache{next(numbers)}") as cache:
            found = await pull(parse_source(f"{registry}/{name}"), cache=cache, platform=AMD64, access=access)
            return str(found.digest)

    return anyio.run(take)


def job_of(command_line: CommandLine, job: str) -> JobRecord:
    async def read(context: ServerContext) -> JobRecord | None:
        async with context.store.read() as connection:
            return await find_job(connection, UUID(job))

    found = command_line.server.call(read)
    assert found is not None
    return found


@pytest.fixture
def spec(command_line: CommandLine) -> str:
    name = f"quiet-{next(numbers)}x"
    words = ("--os", "linux", "--architecture", "x86_64", "--cpu", "1", "--memory", "1G", "--disk", "1G")
    made = command_line.json("spec", "create", "--name", name, *words)
    slug: str = made["slug"]
    return slug


def test_an_image_is_pushed_and_run_by_its_tag(command_line: CommandLine, tmp_path: Path, spec: str) -> None:
    layout, made = layout_of(tmp_path)
    answer = command_line.json("image", "push", str(layout), "adder:v1")
    assert (answer["digest"], answer["blobs"], answer["uploaded"]) == (str(made.manifest), 4, 4)
    assert pulled(command_line, "adder:v1") == str(made.manifest)
    out, err = command_line.run("image", "push", str(layout), "adder:v2")
    assert str(made.manifest) in out
    assert "0 of 4 blobs sent" in err
    run = command_line.json("run", "--image", "adder:v1", "--spec", spec, "--detach")
    stored = job_of(command_line, run["job"])
    assert (stored.own_image, stored.config["digest"]) == (True, str(made.manifest))
    # The tag moves on, and the job stays with what it was.
    other, changed = layout_of(tmp_path)
    assert command_line.json("image", "push", str(other), "adder:v1")["digest"] == str(changed.manifest)
    assert job_of(command_line, run["job"]).config["digest"] == str(made.manifest)
    again = command_line.json("run", "--image", "adder:v1", "--spec", spec, "--detach")
    assert job_of(command_line, again["job"]).config["digest"] == str(changed.manifest)


def test_a_repository_within_a_project(command_line: CommandLine, tmp_path: Path, spec: str) -> None:
    layout, made = layout_of(tmp_path)
    command_line.run("image", "push", str(layout), "team/bench/fast:v1")
    run = command_line.json("run", "--image", "team/bench/fast:v1", "--spec", spec, "--detach")
    stored = job_of(command_line, run["job"])
    assert stored.config["digest"] == str(made.manifest)
    assert run["project"]["slug"] == "team"
    _, err = command_line.run("run", "--image", "team:v1", "--spec", spec, "--detach")
    assert "no such tag" in err


def test_an_index_or_one_platform_of_it(command_line: CommandLine, tmp_path: Path) -> None:
    _, one = layout_of(tmp_path)
    _, two = layout_of(tmp_path, architecture="arm64")
    index = index_of([one.descriptor(platform=True), two.descriptor(platform=True)])
    layout = write_layout(tmp_path / "both", one, two, index=index)
    assert command_line.json("image", "push", str(layout), "many")["manifests"] == 3
    assert pulled(command_line, "many:latest") == str(one.manifest)
    only = command_line.json("image", "push", str(layout), "many:arm", "--platform", "linux/arm64")
    assert (only["digest"], only["manifests"]) == (str(two.manifest), 1)


def test_what_is_removed_is_gone(command_line: CommandLine, tmp_path: Path) -> None:
    layout, made = layout_of(tmp_path)
    command_line.run("image", "push", str(layout), "gone:v1")
    command_line.run("image", "push", str(layout), "gone:v2")
    command_line.run("image", "remove", "gone:v1")
    with pytest.raises(ImageNotFound):
        pulled(command_line, "gone:v1")
    assert pulled(command_line, "gone:v2") == str(made.manifest)
    command_line.run("image", "remove", f"gone@{made.manifest}")
    with pytest.raises(ImageNotFound):
        pulled(command_line, "gone:v2")
    with pytest.raises(ImageNotFound):
        command_line.run("image", "remove", "gone:v2")


def test_images_of_a_project_are_listed(command_line: CommandLine, tmp_path: Path) -> None:
    layout, made = layout_of(tmp_path)
    for name in ("listed:v1", "listed:v2", "listed/inner/app:v1"):
        command_line.run("image", "push", str(layout), name)
    found = command_line.json("image", "list", "--remote", "listed")
    assert [image["name"] for image in found] == ["listed:v1", "listed:v2", "listed/inner/app:v1"]
    size = sum(len(data) for digest, data in made.blobs.items() if digest != made.manifest)
    assert {(image["digest"], image["size"]) for image in found} == {(str(made.manifest), size)}
    out, _ = command_line.run("image", "list", "--remote", "listed")
    assert "listed/inner/app:v1" in out
    assert command_line.json("image", "list")["images"] == []


def test_who_may_not_push_is_told_how(
    command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, _ = layout_of(tmp_path)
    monkeypatch.delenv("METALMARK_API_KEY_FILE")
    with pytest.raises(RegistryDenied) as refusal:
        command_line.run("image", "push", str(layout), "closed:v1")
    assert "--key-file" in (refusal.value.hint or "")
    assert "push to closed" in str(refusal.value)


@pytest.mark.parametrize("target", ["", "UPPER", "a b", "adder:", "adder/../x", "http://x/y"])
def test_targets_that_are_none(command_line: CommandLine, tmp_path: Path, target: str) -> None:
    layout, _ = layout_of(tmp_path)
    with pytest.raises(InputError):
        command_line.run("image", "push", str(layout), target)
