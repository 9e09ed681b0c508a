"""Runs inside the virtual machine of `tests.machine.systemd_vm`: jobs of a runner that systemd starts and stops.

The first test ends with a result on the disk that no server has; then the machine is switched off. The second is run
by the same machine after its next boot.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.machine.runner.service_in_systemd import FILES, journal, metalmark, note, shown, systemctl, until

from metalmark.testing.registry import StandInRegistry
from metalmark.testing.rig import Rig, standing_rig
from metalmark.testing.server_process import ServerProcess

FOLDER = Path("/var/rig")
RECORD = FOLDER / "record.json"
RESULTS = Path("/var/lib/metalmark/runner/results")
BOXES = Path("/run/metalmark/boxes")
UNIT = "metalmark-runner.service"
WITHIN_S = 700.0
_PROGRAM = """#!/bin/sh
exec python3 -c 'from metalmark.cli.main import main; main()' "$@"
"""


@pytest.fixture(autouse=True)
def _program() -> None:
    """What the processes of a rig are started by: there is no environment with an installed Metalmark here."""
    program = Path(sys.executable).with_name("metalmark")
    program.write_text(_PROGRAM)
    program.chmod(0o755)
    os.environ.pop("METALMARK_HOME", None)


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def unsent() -> list[str]:
    return [path.name for path in RESULTS.glob("*/*.end")]


def install(rig: Rig, *specs: str) -> None:
    """Make a runner of some specs, and a service of it."""
    made = rig.call("POST", "/v0/runners", {"name": "service"})
    for spec in specs:
        rig.call("POST", f"/v0/runners/{made['uuid']}/specs", {"spec": spec})
    key = Path("/etc/metalmark/runner.key")
    key.parent.mkdir(mode=0o700)
    key.write_text(made["key"])
    key.chmod(0o600)
    subprocess.run(["tar", "-xf", FILES / "kernels.tar", "-C", _made("/var/lib/metalmark")], check=True)
    words = ["install-service", "--host", rig.server.url, "--runner", made["uuid"], "--drain-timeout", "300"]
    metalmark("runner", *words, "--artifact", str(FILES / "first.tar"), "--", "--allow-emulation")
    assert shown("ActiveState") == "active", journal()


def _made(folder: str) -> str:
    Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def done(rig: Rig, job: str) -> dict[str, Any]:
    found = rig.wait_for(job, seconds=WITHIN_S)
    assert found["status"] == "processed", (found, journal(), rig.server.log()[-3000:])
    return found


def test_jobs_before_the_power_is_cut() -> None:
    with standing_rig(FOLDER, jobs={"heartbeat_timeout_s": 600}) as rig:
        specs = {sandbox: rig.spec(sandbox, sandbox) for sandbox in ("container", "qemu")}
        install(rig, *specs.values())
        note("installed")

        found = done(rig, rig.submit(specs["qemu"], "sh", "-c", "echo a machine in a machine; id -u"))
        (result,) = found["output"]["results"]
        assert result["stdout"] == "a machine in a machine\n0\n"
        assert found["output"]["host"]["sandbox"] == "qemu"
        # Under the restrictions of the unit QEMU is somebody else all the same.
        assert int(found["output"]["host"]["details"]["user"]) >= 0x70000000
        note("qemu")

        job = rig.submit(specs["container"], "sh", "-c", "echo begun; sleep 15; echo done")
        rig.wait_for(job, "running", phase="exec", seconds=WITHIN_S)
        systemctl("stop", UNIT)
        assert (shown("ActiveState"), shown("Result"), shown("ExecMainStatus")) == ("inactive", "success", "0")
        assert done(rig, job)["output"]["results"][0]["stdout"] == "begun\ndone\n"
        assert list(BOXES.glob("*")) == []
        note("drained")

        systemctl("start", UNIT)
        job = rig.submit(specs["container"], "sh", "-c", "echo begun; sleep 15; echo kept")
        rig.wait_for(job, "running", phase="exec", seconds=WITHIN_S)
        rig.server.kill()
        until("the end is on the disk", lambda: unsent() != [])
        kept = {"job": job, "boot": boot_id(), "port": rig.server.port, "settings": rig.server.settings}
        kept |= {"key": rig.key, "project": rig.project, "image": rig.image, "spec": specs["container"]}
        with RECORD.open("w") as stream:
            json.dump(kept, stream)
            stream.flush()
            os.fsync(stream.fileno())


def test_results_after_the_next_boot() -> None:
    kept = json.loads(RECORD.read_text())
    assert kept["boot"] != boot_id()
    assert shown("ActiveState") in ("active", "activating"), "systemd has started it"
    server = ServerProcess(folder=FOLDER, settings=kept["settings"], name="server0", port=kept["port"])
    with StandInRegistry() as registry:
        rig = Rig(folder=FOLDER, servers=[server], registry=registry, image=kept["image"], busybox=None)  # type: ignore[arg-type]  # nothing is pushed
        rig.key, rig.project = kept["key"], kept["project"]
        assert unsent() != [], "it survived"
        server.start()
        try:
            found = done(rig, kept["job"])
            assert found["output"]["results"][0]["stdout"] == "begun\nkept\n"
            until("the end is acknowledged", lambda: unsent() == [])
            systemctl("stop", UNIT)
            assert (shown("ActiveState"), shown("Result")) == ("inactive", "success"), journal()
            assert list(BOXES.glob("*")) == []
        finally:
            server.stop()
