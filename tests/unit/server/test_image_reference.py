from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import InputError, Slug
from metalmark.server.image_reference import ForeignImage, OwnImage, parse_image

PROJECT = UUID("0197d0d0-0000-7000-8000-0000000000aa")
DIGEST = "sha256:" + "0a" * 32
OWN = "http://bench.example:6610/"
ALLOWED = ("ghcr.io", "127.0.0.1:5000")


def parse(text: str, *, url: str = OWN, allowed: tuple[str, ...] = ALLOWED) -> OwnImage | ForeignImage:
    return parse_image(text, registry_url=url, allowed=allowed)


@pytest.mark.parametrize(
    ("text", "project", "tag", "digest"),
    [
        ("adder", "adder", "latest", False),
        ("adder:v3", "adder", "v3", False),
        (f"adder@{DIGEST}", "adder", "", True),
        (f"adder:v3@{DIGEST}", "adder", "v3", True),
        ("library/adder:v3", "adder", "v3", False),
        ("docker.io/adder", "adder", "latest", False),
        ("docker.io/library/adder:7", "adder", "7", False),
        ("bench.example/adder", "adder", "latest", False),
        ("bench.example:6610/adder:1", "adder", "1", False),
        ("Bench.Example:6610/adder:1", "adder", "1", False),
        ("team/adder", None, "latest", False),
        ("my_app:1", None, "1", False),
    ],
)
def test_images_of_our_own_registry(text: str, project: str | None, tag: str, digest: bool) -> None:
    image = parse(text)
    assert isinstance(image, OwnImage)
    assert (image.project, image.tag, image.digest is not None) == (project, tag, digest)
    assert image.project is None or isinstance(image.project, Slug)


def test_a_repository_may_be_a_projects_uuid() -> None:
    image = parse("0197d0d0-0000-7000-8000-0000000000aa:1")
    assert isinstance(image, OwnImage)
    assert str(image.project) == "0197d0d0-0000-7000-8000-0000000000aa"


@pytest.mark.parametrize(
    ("text", "inner"),
    [("adder:1", ""), ("adder/app:1", "app"), ("adder/a/b", "a/b"), ("other/app", ""), ("library/adder/x", "x")],
)
def test_a_repository_within_its_project(text: str, inner: str) -> None:
    image = parse(text)
    assert isinstance(image, OwnImage)
    assert image.inner(PROJECT, "adder") == inner
    by_id = parse(f"{PROJECT}/{inner}") if inner else parse(f"{PROJECT}")
    assert isinstance(by_id, OwnImage)
    assert (by_id.inner(PROJECT, "adder"), by_id.possible_project) == (inner, PROJECT)


def test_the_port_of_our_own_registry_may_be_left_out_of_its_url_alone() -> None:
    assert isinstance(parse("bench.example:443/adder", url="https://bench.example/"), OwnImage)
    assert isinstance(parse("bench.example:80/adder", url="http://bench.example/"), OwnImage)
    with pytest.raises(InputError):
        parse("bench.example:80/adder", url="https://bench.example/")


def test_registries_that_are_allowed() -> None:
    image = parse("GHCR.io/owner/app:v1")
    assert isinstance(image, ForeignImage)
    assert (image.reference.registry, image.reference.repository) == ("ghcr.io", "owner/app")
    assert isinstance(parse("127.0.0.1:5000/app"), ForeignImage)
    # Allowed by its name, Docker Hub is meant; without a name it is our own registry still.
    assert isinstance(parse("docker.io/alpine", allowed=("docker.io",)), ForeignImage)
    assert isinstance(parse("alpine", allowed=("docker.io",)), OwnImage)


@pytest.mark.parametrize(
    "text",
    [
        "quay.io/app",
        "127.0.0.1/app",
        "127.0.0.1:5001/app",
        "ghcr.io:443/app",
        "evil.example/bench.example/adder",
        "localhost/app",
        "http://bench.example/app",
        "bench.example:6610/",
        "adder:",
        "adder@sha256:00",
        f"adder@{DIGEST.upper()}",
        "adder@sha256:" + "0A" * 32,
        "Adder",
        "adder//x",
        "adder:a b",
        "../adder",
        "adder\0",
        " adder",
        "ghcr.io/owner/App",
        "x" * 5000,
    ],
)
def test_references_that_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse(text)


@given(st.text(min_size=1, max_size=80))
def test_no_text_gets_to_a_registry_that_is_not_allowed(text: str) -> None:
    try:
        image = parse(text)
    except InputError:
        return
    if isinstance(image, ForeignImage):
        assert image.reference.registry in ALLOWED
