"""The launcher as sh runs it: what it decides from the record, with whatever a crash left."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from metalmark.runner import Installation, InstalledVersion
from metalmark.runner.installation import Trial

ONE = InstalledVersion(name="1-aaaa", version="1", checksum="a" * 64)
TWO = InstalledVersion(name="2-bbbb", version="2", checksum="b" * 64)
TRIAL = Trial(before=ONE.name, name=TWO.name)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    found = Installation(tmp_path / "opt with space")
    found.prepare()
    for version in (ONE, TWO):
        program = found.program(version.name)
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\necho {version.name} "$@"\n')
        program.chmod(0o755)
        found.finish(version)
    found.switch(ONE.name)
    return found


def start(installation: Installation, *arguments: str) -> str:
    done = subprocess.run([installation.launcher, *arguments], check=True, capture_output=True, text=True, timeout=20)
    return done.stdout.strip()


def test_it_starts_the_current_version_with_all_arguments(installation: Installation) -> None:
    assert start(installation, "runner", "up", "a b") == "1-aaaa runner up a b"


def test_a_version_on_trial_is_started_once_and_then_taken_back(installation: Installation) -> None:
    installation.begin_trial(TRIAL)
    assert start(installation) == "2-bbbb"
    assert installation.trial() == TRIAL
    assert start(installation) == "1-aaaa"
    assert installation.current() == ONE
    assert installation.take_failure() == TWO
    assert start(installation) == "1-aaaa"


def test_a_version_that_proved_itself_is_started_for_ever(installation: Installation) -> None:
    installation.begin_trial(TRIAL)
    assert start(installation) == "2-bbbb"
    installation.end_trial()
    assert [start(installation) for _ in range(2)] == ["2-bbbb", "2-bbbb"]


def test_a_crash_between_record_and_link_is_no_trial(installation: Installation) -> None:
    installation.begin_trial(TRIAL)
    installation.switch(ONE.name)
    assert start(installation) == "1-aaaa"
    assert not (installation.root / "trial").exists()
    assert installation.take_failure() is None


def test_a_crash_between_link_and_record_when_taking_back_is_finished(installation: Installation) -> None:
    installation.begin_trial(TRIAL)
    start(installation)
    installation.switch(ONE.name)
    assert start(installation) == "1-aaaa"
    assert not (installation.root / "trial").exists()


def test_without_a_version_before_it_stays_with_what_there_is(installation: Installation) -> None:
    installation.begin_trial(TRIAL)
    installation.discard(ONE.name)
    assert [start(installation) for _ in range(3)] == ["2-bbbb"] * 3


@pytest.mark.parametrize("text", ["", "\n", "one", "one two", "2-bbbb 9 started\n", "$(touch /tmp/x) `id` new"])
def test_a_damaged_record_is_dropped(installation: Installation, text: str) -> None:
    (installation.root / "trial").write_text(text)
    assert start(installation) == "1-aaaa"
    assert not (installation.root / "trial").exists()


def test_links_that_a_crash_left_are_no_obstacle(installation: Installation) -> None:
    installation.begin_trial(TRIAL)
    start(installation)
    (installation.root / "current.partial").symlink_to("versions/2-bbbb")
    (installation.root / "trial.partial").write_text("x")
    assert start(installation) == "1-aaaa"
