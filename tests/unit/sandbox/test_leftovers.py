from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from metalmark.model import InputError
from metalmark.sandbox.leftovers import OWNER_FILE, BoxRecord, Kind, note, note_process, read_record, sweep
from metalmark.system import Folders, folders, own_identity


@pytest.fixture
def places(tmp_path: Path) -> Folders:
    return folders({"METALMARK_HOME": str(tmp_path)})


def _abandon(places: Folders, name: str, *, pid: int = 2**22 - 1, lines: str = "") -> Path:
    """A box as a process left it that is not there any more."""
    workspace = places.run / "boxes" / name
    workspace.mkdir(parents=True)
    owner = {"pid": pid, "start_ticks": 1, "boot_id": own_identity().boot_id}
    (workspace / OWNER_FILE).write_text(json.dumps({"owner": owner, "format": 1}) + "\n" + lines)
    (places.cache / "boxes" / name).mkdir(parents=True)
    (places.cache / "boxes" / name / "scratch.ext4").write_text("x")
    return workspace


def test_a_box_has_two_folders_and_an_owner_while_it_is_open(places: Folders) -> None:
    with BoxRecord.open(places, "b-1") as record:
        assert record.workspace == places.run / "boxes/b-1"
        assert record.disk == places.cache / "boxes/b-1"
        assert record.workspace.stat().st_mode & 0o777 == 0o700
        record.record(Kind.CGROUP, "b-1")
        owner, resources = read_record(record.workspace)
        assert owner == own_identity()
        assert [(item.kind, item.id) for item in resources] == [(Kind.CGROUP, "b-1")]
        report = sweep(places)
        assert (report.removed, report.alive) == ((), ("b-1",))
        assert record.workspace.is_dir()
    assert not record.workspace.exists()
    assert not record.disk.exists()


def test_a_box_that_could_not_be_taken_down_keeps_its_record_for_the_next_sweep(places: Folders) -> None:
    with BoxRecord.open(places, "stuck") as record:
        note_process(record.workspace, os.getpid())
    assert not record.disk.exists()
    owner, resources = read_record(record.workspace)
    assert owner == own_identity()
    assert [item.kind for item in resources] == [Kind.PROCESS]


@pytest.mark.parametrize("name", ["", "a" * 33, "Up", "a/b", "..", "a b", "ä"])
def test_names_that_are_no_names(places: Folders, name: str) -> None:
    with pytest.raises(InputError), BoxRecord.open(places, name):
        pass


def test_one_name_is_one_box(places: Folders) -> None:
    with BoxRecord.open(places, "b") as record:
        with pytest.raises(InputError, match="another box"), BoxRecord.open(places, "b"):
            pass
        assert record.workspace.is_dir()


def test_what_a_dead_owner_left_goes(places: Folders, tmp_path: Path) -> None:
    outside = tmp_path / "vm.sock"
    outside.write_text("")
    line = json.dumps({"kind": "file", "id": str(outside)})
    workspace = _abandon(places, "dead", lines=line + "\n" + '{"kind": "cgr')
    report = sweep(places)
    assert report.failed == ()
    assert {item.kind for item in report.removed} == {"file", "folder"}
    assert not outside.exists()
    assert not workspace.exists()
    assert not (places.cache / "boxes/dead").exists()


def test_a_reused_pid_is_not_the_owner(places: Folders) -> None:
    workspace = _abandon(places, "reused", pid=os.getpid())
    sweep(places)
    assert not workspace.exists(), "the start time told them apart"


def test_a_folder_whose_record_was_never_written_goes_too(places: Folders) -> None:
    (places.run / "boxes/cut").mkdir(parents=True)
    (places.cache / "boxes/only-disk").mkdir(parents=True)
    assert {item.box for item in sweep(places).removed} == {"cut", "only-disk"}


def test_a_process_that_is_another_by_now_is_left_alone(places: Folders) -> None:
    mine = own_identity()
    lines = "".join(
        json.dumps({"kind": "process", "id": text}) + "\n"
        for text in (f"{mine.pid}:{mine.start_ticks + 1}:{mine.boot_id}", f"{mine.pid}:{mine.start_ticks}:other", "x:y")
    )
    _abandon(places, "pids", lines=lines)
    assert {item.kind for item in sweep(places).removed} == {"folder"}


def test_what_cannot_be_removed_is_kept_on_record(places: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = _abandon(places, "stuck")

    def refuse(folder: Path) -> tuple[str, ...]:
        raise OSError(16, "busy", str(folder))

    monkeypatch.setattr("metalmark.sandbox.leftovers.unmount_below", refuse)
    report = sweep(places)
    assert report.failed
    assert workspace.is_dir(), "the next sweep tries again"
    monkeypatch.undo()
    assert sweep(places).failed == ()
    assert not workspace.exists()


def test_a_driver_can_note_in_a_folder_of_its_callers(tmp_path: Path) -> None:
    note(tmp_path, Kind.LOOP, "/some/file")
    owner, resources = read_record(tmp_path)
    assert owner == own_identity()
    assert resources[0].id == "/some/file"
