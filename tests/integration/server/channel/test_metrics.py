"""What is told to Prometheus while jobs go their way, on both engines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.server.channel.conftest import Rack, rack


@pytest.fixture
def server(tmp_path: Path, database_url: str) -> Iterator[Rack]:
    with rack(tmp_path / "server", database_url) as made:
        yield made


def told(made: Rack) -> dict[str, float]:
    """All samples by name, and by state where they have one."""
    with made.server.client(None) as client:
        answer = client.get("/metrics")
    assert answer.status_code == 200
    return {
        f"{sample.name} {sample.labels.get('status', '')}".strip(): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_the_queue_the_claims_the_states_and_the_connections(server: Rack) -> None:
    spec = server.own_spec()
    jobs = [server.submit(spec) for _ in range(3)]
    seen = told(server)
    assert [seen[f"metalmark_jobs {status}"] for status in ("pending", "claimed", "running")] == [3, 0, 0]
    assert (seen["metalmark_runner_connections"], seen["metalmark_claim_seconds_count"]) == (0, 0)
    runner = server.runner(spec=spec)
    assert runner.ready()["uuid"] == jobs[0]
    seen = told(server)
    assert [seen[f"metalmark_jobs {status}"] for status in ("pending", "claimed", "running")] == [2, 1, 0]
    assert (seen["metalmark_runner_connections"], seen["metalmark_claim_seconds_count"]) == (1, 1)
    assert 0 <= seen["metalmark_claim_seconds_sum"] < 60
    runner.running()
    assert told(server)["metalmark_jobs running"] == 1
    runner.complete(jobs[0], [{"exit_code": 0, "stdout": ""}])
    assert runner.ready()["uuid"] == jobs[1]
    runner.running()
    runner.fail(jobs[1], [], "broke")
    with server.server.client() as client:
        path = f"/v0/projects/{server.floor.project}/jobs"
        assert client.post(f"{path}/{jobs[2]}/cancel").status_code == 200
        assert client.post(f"{path}/{jobs[1]}/retry").status_code == 201
    seen = told(server)
    changes = {
        status: seen[f"metalmark_job_transitions_total {status}"]
        for status in ("pending", "claimed", "running", "completed", "processed", "failed", "canceled")
    }
    # The first three were put into the store beside the server, which counts what comes in through it.
    assert changes == {
        "pending": 1, "claimed": 2, "running": 2, "completed": 1, "processed": 1, "failed": 1, "canceled": 1,
    }  # fmt: skip
    assert [seen[f"metalmark_jobs {status}"] for status in ("pending", "claimed", "running")] == [1, 0, 0]
    runner.disconnect()
