"""``metalmark run`` and ``metalmark runner run``, the same job: one on a server's runner, the other here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from metalmark.testing.rig import Rig, standing_rig

pytestmark = [pytest.mark.needs_root]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A server, and a runner of containers for the spec ``box``."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts and cgroups")
    with standing_rig(tmp_path_factory.mktemp("rig")) as made:
        (made.folder / "user.key").write_text(made.key, encoding="ascii")
        (made.folder / "user.key").chmod(0o600)
        runner = made.runner("rig", made.spec("box", "container"))
        runner.start()
        yield made
        assert runner.stop() == 0, runner.log()


def metalmark(rig: Rig, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user of the server, with a home of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("METALMARK_", "BENCHER_", "CI"))}
    environment = {
        **kept,
        "METALMARK_HOME": str(rig.folder / "home"),
        "METALMARK_HOST": rig.server.url,
        "METALMARK_API_KEY_FILE": str(rig.folder / "user.key"),
        "METALMARK_PROJECT": rig.project,
    }
    command = [str(Path(sys.executable).with_name("metalmark")), *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=environment, cwd=rig.folder
    )


def job_file(rig: Rig, name: str, text: str) -> str:
    path = rig.folder / f"{name}.toml"
    path.write_text(f'image = "{rig.image}"\n{text}\n[machine]\nsandbox = "container"\nmemory = 256\ndisk = 128\n')
    return str(path)


@pytest.mark.parametrize(
    ("name", "text", "code", "outcome"),
    [
        ("zero", "command = ['sh', '-c', 'echo \"$A\"']\niterations = 2\nenv = {A = 'given'}", 0, "exited"),
        ("seven", "command = ['sh', '-c', 'echo half; exit 7']\niterations = 3", 7, "exited"),
        ("allowed", "command = ['sh', '-c', 'exit 7']\nallow_failure = true", 0, "exited"),
        ("signal", "command = ['sh', '-c', 'kill -9 $$']", 137, "signaled"),
        ("late", "command = ['sleep', '60']\ntimeout = 1", 124, "timed_out"),
        ("missing", "command = ['/no/such/program']", 127, "not_found"),
        ("data", "command = ['/etc/passwd']", 126, "not_executable"),
        ("memory", "command = ['tail', '/dev/zero']", 137, "out_of_memory"),
    ],
)
def test_one_file_has_one_outcome_there_and_here(rig: Rig, name: str, text: str, code: int, outcome: str) -> None:
    file = job_file(rig, name, text)
    there = metalmark(rig, "run", file, "--spec", "box", "--json")
    here = metalmark(rig, "runner", "run", file, "--json", "--plain-http")
    assert (there.returncode, here.returncode) == (code, code), f"{there.stderr}\n{here.stderr}"
    seen, local = json.loads(there.stdout), json.loads(here.stdout)
    results = seen["job"]["output"]["results"]
    assert [one["outcome"] for one in results] == [one["outcome"] for one in local["iterations"]]
    assert results[0]["outcome"] == outcome
    assert [one.get("stdout", "") for one in results] == [one["stdout"]["text"] for one in local["iterations"]]
    assert seen["exit_code"] == local["exit_code"] == code


def test_output_goes_where_it_went_and_the_table_says_how_it_ended(rig: Rig) -> None:
    file = job_file(rig, "both", "command = ['sh', '-c', 'echo to-out; echo to-err >&2; exit 3']")
    there = metalmark(rig, "run", file, "--spec", "box")
    assert (there.returncode, there.stdout) == (3, "to-out\n")
    for told in ("to-err\n", "phase exec\n", "status   failed\n", "sandbox  container", "1  exited      3"):
        assert told in there.stderr


def test_run_without_a_runner_that_can_is_refused_or_says_so(rig: Rig) -> None:
    file = job_file(rig, "refused", "command = ['true']")
    there = metalmark(rig, "run", file, "--spec", "no-such-spec")
    assert (there.returncode, there.stdout) == (125, "")
    assert "no-such-spec" in there.stderr
    foreign = metalmark(rig, "run", "--spec", "box", "--image", "registry.invalid/x:1")
    assert foreign.returncode == 125
    assert "registry.invalid" in foreign.stderr
