from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.runner.fake_apt import FakeApt, FakeFirecracker

from metalmark.runner import setup_facts
from metalmark.runner.setup_facts import read_setup_facts
from metalmark.runner.setup_plan import SetupFacts
from metalmark.sandbox import DriverSettings
from metalmark.system import Folders

pytestmark = pytest.mark.anyio


async def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, uid: int, sudo: str | None = None) -> SetupFacts:
    monkeypatch.setattr("os.geteuid", lambda: uid)
    monkeypatch.setattr(setup_facts, "user_name", lambda _uid: "ada")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True, exist_ok=True)
    (root / "etc/os-release").write_text("ID=debian\nVERSION_ID=12\n")
    (root / "etc/group").write_text("kvm:x:1:bob\n")
    home = tmp_path / "home"
    folders = Folders(state=home / "state", cache=home / "cache", run=home / "run", config=home / "config")
    return await read_setup_facts(
        DriverSettings(folders=folders, machine="x86_64", kvm_device=tmp_path / "no-kvm"),
        apt=FakeApt(present=("runc", "vim"), known={"linux-image-cloud-amd64": "6.1"}),
        environment={} if sudo is None else {"SUDO_USER": sudo},
        firecracker=FakeFirecracker(tmp_path / "bin/firecracker"),
        root=root,
    )


async def test_an_ordinary_user_joins_the_group_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = await read(tmp_path, monkeypatch, uid=1000, sudo="mallory")
    assert facts.group_user == "ada"
    assert not facts.in_group
    assert facts.kvm_group == "kvm"
    assert facts.installed == {"runc"}
    assert facts.kernel_known
    assert facts.architecture == "amd64"
    assert not facts.kvm_works
    assert facts.firecracker is None
    assert facts.kernels == ()


@pytest.mark.parametrize(
    ("sudo", "user", "member"),
    [("bob", "bob", True), ("eve", "eve", False), (None, None, False), ("root", None, False)],
)
async def test_root_looks_after_who_became_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sudo: str | None, user: str | None, member: bool
) -> None:
    facts = await read(tmp_path, monkeypatch, uid=0, sudo=sudo)
    assert facts.group_user == user
    assert facts.in_group == member


async def test_firecracker_that_is_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/firecracker").touch()
    facts = await read(tmp_path, monkeypatch, uid=0)
    assert facts.firecracker == str(tmp_path / "bin/firecracker")
