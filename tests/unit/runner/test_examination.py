from __future__ import annotations

from tests.unit.runner.examinations import examination


def test_commands_are_written_for_the_user_who_examines() -> None:
    assert examination(facts={"uid": 0}).install("runc") == "apt-get install --no-install-recommends runc"
    assert examination(facts={"uid": 1}).install("runc").startswith("sudo apt-get install")
    assert examination(facts={"uid": 1}).root_command(["modprobe", "loop"]) == "sudo modprobe loop"
