"""The folder of an install: its records and its link."""

from __future__ import annotations

from pathlib import Path

import pytest

from metalmark.model import StableError
from metalmark.runner import Installation, InstalledVersion
from metalmark.runner.installation import Trial

ONE = InstalledVersion(name="1-aaaa", version="1", checksum="a" * 64)
TWO = InstalledVersion(name="2-bbbb", version="2", checksum="b" * 64)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    found = Installation(tmp_path / "opt")
    found.prepare()
    for version in (ONE, TWO):
        found.folder(version.name).mkdir()
        found.finish(version)
    found.switch(ONE.name)
    return found


def test_the_link_says_which_version_counts(installation: Installation) -> None:
    assert installation.current() == ONE
    installation.switch(TWO.name)
    assert installation.current() == TWO
    assert (installation.root / "current").readlink() == Path("versions/2-bbbb")
    assert not (installation.root / "current.partial").exists()


def test_a_link_that_a_crash_left_half_made_is_no_obstacle(installation: Installation) -> None:
    (installation.root / "current.partial").symlink_to("versions/nothing")
    installation.switch(TWO.name)
    assert installation.current() == TWO


def test_a_version_without_its_record_is_none(installation: Installation) -> None:
    (installation.folder(TWO.name) / "version.json").unlink()
    assert installation.versions() == [ONE]
    assert installation.read(TWO.name) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": "2"}', "\x00", "nan"])
def test_a_damaged_record_is_none(installation: Installation, text: str) -> None:
    (installation.folder(TWO.name) / "version.json").write_text(text)
    assert installation.read(TWO.name) is None


def test_a_trial_is_of_the_current_version_alone(installation: Installation) -> None:
    assert installation.trial() is None
    trial = Trial(before=ONE.name, name=TWO.name)
    installation.begin_trial(trial)
    assert installation.current() == TWO
    assert installation.trial() == trial
    installation.switch(ONE.name)
    assert installation.trial() is None


def test_a_version_that_proved_itself_stays(installation: Installation) -> None:
    installation.begin_trial(Trial(before=ONE.name, name=TWO.name))
    installation.end_trial()
    assert installation.trial() is None
    assert installation.current() == TWO
    assert installation.take_failure() is None


def test_a_version_that_is_taken_back_is_told_once(installation: Installation) -> None:
    trial = Trial(before=ONE.name, name=TWO.name)
    installation.begin_trial(trial)
    installation.take_back(trial)
    assert installation.current() == ONE
    assert installation.trial() is None
    assert installation.take_failure() == TWO
    assert installation.take_failure() is None


@pytest.mark.parametrize("words", ["../../etc x new", "1-aaaa ../x new", "a b", ". .. new"])
def test_a_record_cannot_lead_out_of_the_folder(installation: Installation, words: str) -> None:
    (installation.root / "trial").write_text(words)
    (installation.root / "failed").write_text(words)
    assert installation.trial() is None
    assert installation.take_failure() is None


def test_what_is_not_kept_is_deleted(installation: Installation) -> None:
    (installation.root / "versions/half").mkdir()
    installation.discard_all_but(TWO.name)
    assert [entry.name for entry in (installation.root / "versions").iterdir()] == [TWO.name]


def test_what_a_killed_process_left_goes_and_strangers_files_stay(installation: Installation) -> None:
    (installation.root / "metalmark-work-abc").mkdir()
    (installation.root / "metalmark-work-abc/pip.whl").write_text("x")
    (installation.root / ".trial.abc.partial").write_text("x")
    (installation.root / "mine").write_text("x")
    installation.discard_all_but(ONE.name)
    assert {entry.name for entry in installation.root.iterdir()} == {"launch", "current", "versions", "mine"}


def test_one_process_installs_at_a_time(installation: Installation) -> None:
    with installation.alone():
        with pytest.raises(StableError, match="another process"), installation.alone():
            pass
    with installation.alone():
        pass


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_a_folder_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt").chmod(mode)
    with pytest.raises(StableError, match="others"):
        Installation(tmp_path / "opt").prepare()
    assert list((tmp_path / "opt").iterdir()) == []


def test_versions_and_parents_that_others_can_write_are_refused(installation: Installation) -> None:
    before = installation.launcher.stat().st_ino
    for place in (installation.root / "versions", installation.root.parent):
        mode = place.stat().st_mode
        place.chmod(0o777)
        with pytest.raises(StableError, match=f"{place} can be written by others"):
            installation.prepare()
        place.chmod(mode)
    assert installation.launcher.stat().st_ino == before
    installation.prepare()


def test_nobody_else_can_hold_the_lock(installation: Installation) -> None:
    (installation.root / ".lock").touch(mode=0o644)
    (installation.root / ".lock").chmod(0o644)
    with installation.alone():
        assert (installation.root / ".lock").stat().st_mode & 0o777 == 0o600


def test_a_process_knows_the_install_that_it_runs_from(installation: Installation, tmp_path: Path) -> None:
    found = Installation.of_this_process(installation.root / "current")
    assert found is not None
    assert found.root == installation.root
    assert Installation.of_this_process(tmp_path) is None
    installation.launcher.unlink()
    assert Installation.of_this_process(installation.folder(ONE.name)) is None


def test_a_file_in_its_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "opt").write_text("")
    with pytest.raises(StableError, match="no folder"):
        Installation(tmp_path / "opt").prepare()
