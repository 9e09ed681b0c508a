"""Installing the service: what is changed, what is refused, and that doing it twice is the same as once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from metalmark.model import InputError, MetalmarkError, NoPermission, StableError
from metalmark.runner import Installation, InstalledVersion, service
from metalmark.runner.installation import Trial
from metalmark.runner.service import ServiceManager, ServiceRequest, install_service, uninstall_service
from metalmark.runner.service_unit import UNIT_NAME, ServiceUnit

pytestmark = pytest.mark.anyio

KEY = "bencher_runner_" + "a" * 30


class FakeManager(ServiceManager):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.found: int | None = 252
        self.active = False
        self.asked: list[str] = []

    async def version(self) -> int | None:
        return self.found

    async def reload(self) -> None:
        self.asked.append("reload")

    async def enable(self, unit: str) -> None:
        self.asked.append(f"enable {unit}")

    async def restart(self, unit: str, *, within_s: float) -> None:
        self.active = True
        self.asked.append(f"restart {unit}")

    async def disable(self, unit: str, *, within_s: float) -> None:
        self.active = False
        self.asked.append(f"disable {unit}")

    async def is_active(self, unit: str) -> bool:
        return self.active


class Machine:
    """A machine below a folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.manager = FakeManager()
        self.units = folder / "units"
        self.units.mkdir()
        self.key = folder / "runner.key"
        self.key.write_text(KEY)
        self.key.chmod(0o600)
        self.told: list[str] = []
        self.copies = 0
        self.copy_error: MetalmarkError | None = None
        self.request = ServiceRequest(
            unit=ServiceUnit(
                root=folder / "opt",
                state=folder / "state",
                cache=folder / "cache",
                host="http://localhost:6610",
                runner="rack-1",
                key_file=self.key,
                drain_timeout_s=60,
            ),
            python=Path("/usr/bin/python3"),
        )
        self.installation = Installation(self.request.unit.root)
        monkeypatch.setattr(service, "install_copy", self._copy)

    async def _copy(self, installation: Installation, *, arguments: Sequence[str]) -> InstalledVersion:
        assert tuple(arguments) == self.request.unit.arguments()
        if self.copy_error is not None:
            raise self.copy_error
        self.copies += 1
        version = InstalledVersion(name="1-copy", version="1", checksum=None)
        installation.folder(version.name).mkdir()
        installation.finish(version)
        return version

    async def install(self, request: ServiceRequest | None = None, *, uid: int = 0) -> bool:
        return await install_service(
            request or self.request, manager=self.manager, tell=self.told.append, units=self.units, uid=uid
        )

    async def uninstall(self) -> bool:
        return await uninstall_service(
            self.request.unit.root, manager=self.manager, tell=self.told.append, units=self.units, uid=0
        )


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


async def test_it_installs_a_version_and_a_unit_and_starts_them(machine: Machine) -> None:
    assert await machine.install()
    assert machine.installation.current() == InstalledVersion(name="1-copy", version="1", checksum=None)
    assert (machine.units / UNIT_NAME).read_text() == machine.request.unit.text()
    assert machine.manager.asked == ["reload", f"enable {UNIT_NAME}", f"restart {UNIT_NAME}"]
    assert (machine.request.unit.state.stat().st_mode & 0o777) == 0o700


async def test_the_second_time_nothing_is_changed_and_nothing_started_again(machine: Machine) -> None:
    await machine.install()
    machine.manager.asked.clear()
    assert not await machine.install()
    assert machine.manager.asked == [f"enable {UNIT_NAME}"]
    assert machine.copies == 1


async def test_a_service_that_was_stopped_is_started(machine: Machine) -> None:
    await machine.install()
    machine.manager.active = False
    assert await machine.install()
    assert machine.manager.asked[-1] == f"restart {UNIT_NAME}"


async def test_another_unit_replaces_the_first_and_the_version_stays(machine: Machine) -> None:
    await machine.install()
    changed = replace(machine.request, unit=replace(machine.request.unit, options=("--slots", "2")))
    assert await machine.install(changed)
    assert "--slots 2" in (machine.units / UNIT_NAME).read_text()
    assert machine.copies == 1


async def test_without_a_start_systemd_is_only_told(machine: Machine) -> None:
    assert await machine.install(replace(machine.request, start=False))
    assert machine.manager.asked == ["reload", f"enable {UNIT_NAME}"]


@pytest.mark.parametrize("version", [None, 246])
async def test_without_a_systemd_that_can_nothing_is_touched(machine: Machine, version: int | None) -> None:
    machine.manager.found = version
    with pytest.raises(StableError, match="systemd"):
        await machine.install()
    assert machine.installation.current() is None
    assert list(machine.units.iterdir()) == []


async def test_only_root_may(machine: Machine) -> None:
    with pytest.raises(NoPermission):
        await machine.install(uid=1000)


async def test_a_wrong_key_is_told_before_anything_is_done(machine: Machine) -> None:
    machine.key.write_text("bencher_user_" + "a" * 30)
    with pytest.raises(InputError) as caught:
        await machine.install()
    assert "aaa" not in str(caught.value)
    assert list(machine.units.iterdir()) == []


async def test_a_key_that_others_can_read_is_refused(machine: Machine) -> None:
    machine.key.chmod(0o644)
    with pytest.raises(InputError, match="other users can read"):
        await machine.install()


async def test_a_python_that_the_service_could_not_see_makes_no_version(machine: Machine) -> None:
    hidden = replace(machine.request, python=Path("/home/ada/.pyenv/versions/3.11.7/bin/python3.11"))
    with pytest.raises(StableError, match="home folder"):
        await machine.install(hidden)
    assert (machine.copies, machine.manager.asked) == (0, [])
    await machine.install()
    # What is installed already has a Python of its own.
    assert not await machine.install(hidden)


async def test_a_version_that_does_not_work_leaves_the_service_as_it_was(machine: Machine) -> None:
    machine.copy_error = StableError("it does not start")
    with pytest.raises(StableError, match="does not start"):
        await machine.install()
    assert list(machine.units.iterdir()) == []
    assert machine.manager.asked == []


async def test_what_an_administrator_installs_is_on_no_trial(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    await machine.install()
    other = InstalledVersion(name="2-bbbb", version="2", checksum="b" * 64)
    machine.installation.folder(other.name).mkdir()
    machine.installation.finish(other)
    machine.installation.begin_trial(Trial(before="1-copy", name=other.name))

    async def from_artifact(*_: object, **__: object) -> InstalledVersion:
        found = machine.installation.read("1-copy")
        assert found is not None
        return found

    monkeypatch.setattr(service, "install_artifact", from_artifact)
    artifact = machine.units.parent / "artifact.tar"
    artifact.write_bytes(b"x")
    await machine.install(replace(machine.request, artifact=artifact))
    assert not (machine.installation.root / "trial").exists()


async def test_taking_it_away_leaves_the_key_results_and_strangers_files(machine: Machine) -> None:
    await machine.install()
    mine = machine.request.unit.root / "mine"
    mine.write_text("x")
    assert await machine.uninstall()
    assert list(machine.units.iterdir()) == []
    assert machine.key.exists()
    assert machine.request.unit.state.exists()
    assert list(machine.request.unit.root.iterdir()) == [mine]
    assert machine.manager.asked[-2:] == [f"disable {UNIT_NAME}", "reload"]
    assert not await machine.uninstall()


async def test_an_empty_folder_goes_with_it(machine: Machine) -> None:
    await machine.install()
    await machine.uninstall()
    assert not machine.request.unit.root.exists()


async def test_a_python_that_others_can_write_does_not_become_roots(machine: Machine, tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text("")
    python.chmod(0o775)
    with pytest.raises(StableError, match="can be written by others"):
        await machine.install(replace(machine.request, python=python))
    assert machine.copies == 0
    assert not (machine.units / UNIT_NAME).exists()
