from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import InputError
from metalmark.oci import Reference

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "registry", "repository", "version"),
    [
        ("registry.example.com/app", "registry.example.com", "app", "latest"),
        ("registry.example.com:8443/team/app:1.2", "registry.example.com:8443", "team/app", "1.2"),
        ("localhost/app:x", "localhost", "app", "x"),
        ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000", "a/b/c", "latest"),
        ("[::1]:5000/app", "[::1]:5000", "app", "latest"),
        (f"h.io/app@sha256:{HEX}", "h.io", "app", f"sha256:{HEX}"),
        (f"h.io/app:1@sha256:{HEX}", "h.io", "app", f"sha256:{HEX}"),
        ("H.IO/app", "h.io", "app", "latest"),
        ("h.io/a__b/c-d.e", "h.io", "a__b/c-d.e", "latest"),
        ("docker.io/alpine:3", "docker.io", "library/alpine", "3"),
        ("docker.io/team/app", "docker.io", "team/app", "latest"),
    ],
)
def test_reads_what_registries_allow(text: str, registry: str, repository: str, version: str) -> None:
    reference = Reference.parse(text)
    assert (reference.registry, reference.repository, reference.version) == (registry, repository, version)
    assert Reference.parse(str(reference)) == reference


def test_docker_hub_is_reached_at_its_own_server_and_no_other_name_is_changed() -> None:
    assert Reference.parse("docker.io/alpine").server == "registry-1.docker.io"
    assert Reference.parse("docker.io:444/alpine").server == "docker.io:444"
    assert Reference.parse("ghcr.io/a/b").server == "ghcr.io"


@pytest.mark.parametrize("text", ["alpine", "alpine:3", "library/alpine:3", "team/app", "myhost/app", "localhost"])
def test_a_reference_that_names_no_registry_is_refused_with_how_to_name_one(text: str) -> None:
    with pytest.raises(InputError) as caught:
        Reference.parse(text)
    assert f"docker.io/{text}" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h.io/",
        "h.io/App",
        "h.io/a//b",
        "h.io/a/../b",
        "h.io/a:",
        "h.io/a:-x",
        "h.io/a:" + "t" * 129,
        "h.io:0/a",
        "h.io:65536/a",
        "h.io:/a",
        "h.io:5x/a",
        "h_x.io/a",
        "-h.io/a",
        "user@h.io/a",
        "https://h.io/a",
        "h.io/a?b",
        "h.io/a\n",
        "h.io/" + "a" * 256,
        "h.io/" + "a/" * 3000 + "a",
        f"h.io/a@sha256:{HEX.upper()}",
        f"h.io/a@sha256:{HEX[:-1]}",
        f"h.io/a@md5:{HEX}",
        "h.io/a@",
    ],
)
def test_refuses_what_registries_do_not_allow(text: str) -> None:
    with pytest.raises(InputError):
        Reference.parse(text)


NAME = st.from_regex(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+){0,2}", fullmatch=True).filter(lambda part: len(part) < 40)


@given(
    host=st.from_regex(r"[a-z0-9]{1,8}\.[a-z]{2,5}(:[1-9][0-9]{0,3})?", fullmatch=True),
    parts=st.lists(NAME, min_size=1, max_size=4),
    tag=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,30}", fullmatch=True) | st.none(),
    hex_digits=st.text("0123456789abcdef", min_size=64, max_size=64) | st.none(),
)
def test_every_well_formed_reference_comes_back_as_it_was(
    host: str, parts: list[str], tag: str | None, hex_digits: str | None
) -> None:
    digest = f"sha256:{hex_digits}" if hex_digits else None
    text = f"{host}/{'/'.join(parts)}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    reference = Reference.parse(text)
    assert (reference.registry, reference.repository) == (host, "/".join(parts))
    assert reference.tag == (tag or ("" if digest else "latest"))
    assert str(reference.digest or "") == (digest or "")


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused_as_input(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InputError:
        return
    assert reference.host
    assert ".." not in reference.repository.split("/")
