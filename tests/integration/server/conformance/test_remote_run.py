"""A remote run from the public CLI through the server to a public runner and back."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import connect

from metalmark.testing import public_shapes as shapes
from metalmark.testing.public_cli import PublicCli

RESULTS = [
    {"exit_code": 0, "stdout": '{"adder":{"latency":{"value":41.5}}}', "stderr": "warm-up done\n"},
    {"exit_code": 0, "output": {"/out/bmf.json": '{"adder":{"latency":{"value":40.9}}}'}},
]


def job_of(received: str | bytes) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(received)
    assert message["event"] == "job", message
    return message


def run_one_job(world: Any, runner: dict[str, Any], last: Callable[[str], dict[str, Any]], seen: list[Any]) -> None:
    """What the public runner does with one job, its terminal message of the test's choice."""
    url = f"ws://{urlsplit(world.url).netloc}/v0/runners/{runner['uuid']}/channel"
    with connect(url, additional_headers={"Authorization": f"Bearer {runner['key']}"}, compression=None) as channel:

        def say(**message: Any) -> dict[str, Any]:
            channel.send(json.dumps(message))
            answer: dict[str, Any] = json.loads(channel.recv(timeout=20))
            return answer

        channel.send(json.dumps({"event": "ready", "poll_timeout": 55}))
        job = job_of(channel.recv(timeout=30))
        seen.append(job)
        for event in ("running", "heartbeat", "heartbeat"):
            answer = say(event=event)
            assert answer == {"event": "ack", "job": job["uuid"]}, answer
        seen.append(say(**last(job["uuid"])))


def run_with(world: Any, last: Callable[[str], dict[str, Any]], **fields: Any) -> tuple[Any, list[Any], dict[str, Any]]:
    project, spec, runner = world.make_project(), world.make_spec(), world.make_runner()
    path = f"/v0/runners/{runner['uuid']}/specs"
    assert world.post(path, {"spec": spec["uuid"]}, by=world.admin.jwt).status_code == 201
    seen: list[Any] = []
    thread = threading.Thread(target=run_one_job, args=(world, runner, last, seen))
    thread.start()
    cli = PublicCli(host=world.url, credential=world.owner.key, sleep=lambda _seconds: time.sleep(0.05), attempts=2)
    job = {"spec": spec["slug"], "timeout": 240, "cmd": ["bench"], "env": {"MODE": "ci"}, **fields}
    done = cli.run_remote(image=world.own_image, project=project["slug"], job=job)
    thread.join(timeout=30)
    assert not thread.is_alive()
    return done, seen, project


def test_a_job_is_run_and_its_report_comes_back(world: Any) -> None:
    last = lambda job: {"event": "completed", "job": job, "results": RESULTS}  # noqa: E731 - said in one place
    done, seen, project = run_with(world, last, iter=2)
    job, ack = seen
    assert ack == {"event": "ack", "job": job["uuid"]}
    assert done.statuses[-1] == "processed"
    assert job["uuid"] == done.submitted.job
    assert set(job) >= {"uuid", "spec", "config", "oci_token", "timeout", "created"}
    shapes.Spec.model_validate(job["spec"])
    config = shapes.JobConfig.model_validate(job["config"])
    assert (config.digest, config.project, config.timeout) == (world.digest, project["uuid"], job["timeout"])
    assert (config.cmd, config.env, config.iter) == (["bench"], {"MODE": "ci"}, 2)
    assert "entrypoint" not in job["config"]
    claims = job["oci_token"].split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["aud"] == "oci_runner"
    output = done.job.output
    assert output is not None
    assert output.error is None
    assert [one.model_dump(exclude_none=True) for one in output.results] == RESULTS
    assert done.report.job == job["uuid"]
    at = f"/v0/projects/{project['slug']}/jobs/{job['uuid']}"
    assert "output" not in world.get(at).json()
    assert "output" in world.get(at, by=world.user.jwt).json()
    assert "output" not in world.get(f"/v0/projects/{project['slug']}/jobs", by=world.owner.jwt).json()[0]
    assert None not in [world.get(at).json()[name] for name in ("runner", "claimed", "started", "completed")]


def test_a_failed_job_tells_why(world: Any) -> None:
    results = [{"exit_code": 2, "stderr": "boom"}]
    last = lambda job: {"event": "failed", "job": job, "results": results, "error": "exit code 2"}  # noqa: E731
    done, _, project = run_with(world, last)
    assert done.statuses[-1] == "failed"
    assert done.job.output is not None
    assert done.job.output.error == "exit code 2"
    assert [one.model_dump(exclude_none=True) for one in done.job.output.results] == results
    path = f"/v0/projects/{project['slug']}/jobs/{done.job.uuid}"
    assert world.call("POST", f"{path}/cancel", by=world.owner.key).status_code in {200, 202, 409}
    assert world.get(path).json()["status"] == "failed"


def test_a_job_that_its_runner_gives_up(world: Any) -> None:
    done, _, _ = run_with(world, lambda job: {"event": "canceled", "job": job})
    assert done.statuses[-1] == "canceled"
    assert done.job.output is None


def test_results_of_several_mib_arrive(world: Any) -> None:
    big = [{"exit_code": 0, "stdout": "0123456789abcdef" * 65536 * 9}]
    done, _, _ = run_with(world, lambda job: {"event": "completed", "job": job, "results": big})
    assert done.statuses[-1] == "processed"
    assert done.job.output.results[0].stdout == big[0]["stdout"]


def test_a_public_runner_is_given_no_other_sandbox(world: Any) -> None:
    project, runner = world.make_project(), world.make_runner()
    spec = world.make_spec(sandbox="qemu")
    world.post(f"/v0/runners/{runner['uuid']}/specs", {"spec": spec["uuid"]}, by=world.admin.jwt)
    report = world.run(project=project["slug"], job={"image": world.own_image, "spec": spec["uuid"]}).json()
    url = f"ws://{urlsplit(world.url).netloc}/v0/runners/{runner['uuid']}/channel"
    with connect(url, additional_headers={"Authorization": f"Bearer {runner['key']}"}, compression=None) as channel:
        channel.send(json.dumps({"event": "ready", "poll_timeout": 1}))
        assert json.loads(channel.recv(timeout=20)) == {"event": "no_job"}
    path = f"/v0/projects/{project['slug']}/jobs/{report['job']}"
    assert world.get(path, by=world.owner.jwt).json()["status"] == "pending"
