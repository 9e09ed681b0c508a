"""Jobs from their submission to their report: servers, a runner and real boxes, each in processes of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from metalmark.testing.postgresql import find_postgresql, running_postgresql
from metalmark.testing.rig import Rig, standing_rig
from metalmark.testing.runner_process import RunnerProcess

pytestmark = [pytest.mark.needs_root]

SANDBOXES = ["container", "qemu"]
SLOWLY = "for word in one two three; do echo $word; echo on-error $word >&2; sleep 1; done"


@pytest.fixture(scope="module", params=["sqlite", "postgresql, two servers"])
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Servers over one database."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts and cgroups")
    folder = tmp_path_factory.mktemp("rig")
    if request.param == "sqlite":
        with standing_rig(folder) as made:
            yield made
        return
    if find_postgresql() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with (
        running_postgresql() as cluster,
        cluster.database() as url,
        standing_rig(folder, database=url, servers=2) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def specs(rig: Rig) -> dict[str, str]:
    """A spec for each sandbox."""
    return {sandbox: rig.spec(f"small {sandbox}", sandbox) for sandbox in SANDBOXES}


@pytest.fixture(scope="module")
def runner(rig: Rig, specs: dict[str, str], guest_kernels: Path) -> Iterator[RunnerProcess]:
    """A runner of both; it leaves with exit code 0 and nothing behind."""
    made = rig.runner("rig", *specs.values(), options=["--allow-emulation"], kernels=guest_kernels)
    before = made.leftovers()
    made.start()
    yield made
    assert made.stop() == 0, made.log()
    assert made.leftovers() - before == {}


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_job_is_followed_live_and_ends_with_its_results(
    rig: Rig, specs: dict[str, str], runner: RunnerProcess, sandbox: str
) -> None:
    job = rig.submit(specs[sandbox], "sh", "-c", f"{SLOWLY}; exit 0")
    # From the last server: the runner is connected to the first.
    with rig.follow(job, at=len(rig.servers) - 1) as followed:
        followed.wait_for("one")
        followed.wait_for("three")
        assert rig.job(job)["status"] == "running", "what it prints is seen before it ends"
        done = rig.wait_for(job)
    assert (done["status"], done["error"]) == ("processed", None), runner.log()
    (result,) = done["output"]["results"]
    assert (result["exit_code"], result["stdout"]) == (0, "one\ntwo\nthree\n")
    assert result["stderr"] == "on-error one\non-error two\non-error three\n"
    assert (followed.text(), followed.text("stderr")) == (result["stdout"], result["stderr"])
    phases = [event["phase"] for _, kind, event in followed.events if kind == "phase"]
    assert phases.count("exec") == 1, phases
    assert phases[phases.index("exec") + 1 :] in ([], ["collect"]), "what passes at once is not told"
    _, kind, end = followed.events[-1]
    assert kind == "end"
    assert end["status"] in ("completed", "processed"), "the stream ends with the benchmark, not with its reading"


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_iterations_files_and_environment_come_back(
    rig: Rig, specs: dict[str, str], runner: RunnerProcess, sandbox: str
) -> None:
    command = ["sh", "-c", 'echo "$WORD $0 $1"; echo 42 > /work/result; exit 0', "first", "second"]
    fields = {"env": {"WORD": "given"}, "iter": 2, "file_paths": ["/work/result"]}
    done = rig.wait_for(rig.submit(specs[sandbox], *command, **fields))
    assert done["status"] == "processed", runner.log()
    assert [result["stdout"] for result in done["output"]["results"]] == ["given first second\n"] * 2
    assert [result["output"] for result in done["output"]["results"]] == [{"/work/result": "42\n"}] * 2


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_benchmark_that_fails_is_told_with_what_it_printed(
    rig: Rig, specs: dict[str, str], runner: RunnerProcess, sandbox: str
) -> None:
    done = rig.wait_for(rig.submit(specs[sandbox], "sh", "-c", "echo before; exit 7", iter=3))
    assert done["status"] == "failed", runner.log()
    assert done["end_reason"] == "reported_failure"
    assert "7" in done["error"]
    (result,) = done["output"]["results"]
    assert (result["exit_code"], result["stdout"]) == (7, "before\n"), "the first failure ends the job"


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_much_output_arrives_whole(rig: Rig, specs: dict[str, str], runner: RunnerProcess, sandbox: str) -> None:
    done = rig.wait_for(rig.submit(specs[sandbox], "sh", "-c", "seq 1 400000"), seconds=90)
    assert done["status"] == "processed", runner.log()
    stdout = done["output"]["results"][0]["stdout"]
    assert len(stdout) == 2_688_895, "more than one message carries"
    [end] = done["iterations"]
    assert (end["iteration"], end["exit_code"], end["outcome"]) == (1, 0, "exited"), "told beside what is uploaded"
    assert stdout.startswith("1\n2\n")
    assert stdout.endswith("\n400000\n")


def test_a_second_run_asks_the_registry_for_nothing(rig: Rig, specs: dict[str, str], runner: RunnerProcess) -> None:
    rig.wait_for(rig.submit(specs["container"], "true"), "processed")
    before = len(rig.registry.paths("/v2/"))
    done = rig.wait_for(rig.submit(specs["container"], "true"), "processed")
    asked = rig.registry.paths("/v2/")[before:]
    assert all("/blobs/" not in path for path in asked), asked
    assert done["end_reason"] == "completed", runner.log()


def test_a_job_for_which_no_sandbox_was_proved_waits_with_the_reason(rig: Rig, runner: RunnerProcess) -> None:
    spec = rig.spec("unboxed", None)
    rig.call("POST", f"/v0/runners/{runner.runner}/specs", {"spec": spec})
    job = rig.submit(spec, "true")
    reason = rig.job(job)["pending"]
    assert (reason["cause"], "sandbox none did not work there" in reason["text"]) == ("not_capable", True), reason
    rig.cancel(job)
