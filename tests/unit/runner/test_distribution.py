from __future__ import annotations

from pathlib import Path

import pytest

from metalmark.runner.distribution import Distribution, architecture_of, as_root, install_command, read_distribution


def test_os_release_is_read(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    text = 'PRETTY_NAME="Ubuntu 24.04 LTS"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\n'
    (tmp_path / "etc/os-release").write_text(text)
    found = read_distribution(tmp_path)
    assert found == Distribution(
        name="ubuntu", like=("debian",), version="24.04", codename="noble", title="Ubuntu 24.04 LTS"
    )
    assert found.family == "ubuntu"


def test_the_second_place_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/os-release").write_text("ID='debian'\n")
    assert read_distribution(tmp_path).family == "debian"


def test_nothing_is_an_unknown_distribution(tmp_path: Path) -> None:
    found = read_distribution(tmp_path)
    assert found.family == ""
    assert found.title == "an unknown Linux distribution"


@pytest.mark.parametrize(
    ("name", "like", "family"),
    [
        ("linuxmint", ("ubuntu", "debian"), "ubuntu"),
        ("raspbian", ("debian",), "debian"),
        ("fedora", (), ""),
        ("arch", ("archlinux",), ""),
    ],
)
def test_derived_distributions_have_a_family(name: str, like: tuple[str, ...], family: str) -> None:
    assert Distribution(name=name, like=like).family == family


def test_architectures_are_debians() -> None:
    assert [architecture_of(name) for name in ("x86_64", "aarch64", "riscv64")] == ["amd64", "arm64", "riscv64"]


def test_commands_fit_the_user_and_can_be_pasted() -> None:
    assert as_root(["sh", "-c", "echo a b"], uid=0) == "sh -c 'echo a b'"
    assert as_root(["modprobe", "loop"], uid=1000) == "sudo modprobe loop"
    assert install_command(["a", "b"], family="debian", uid=1) == "sudo apt-get install --no-install-recommends a b"
    assert "your distribution" in install_command(["a"], family="", uid=0)
