from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from metalmark.client import names_a_project, run_body
from metalmark.model import InputError, JobFile, job_of_fields
from metalmark.wire import CONTEXT_PREFIX, NewRun

KEY = UUID("0d6b7c1e-58a1-4a0e-9c55-6f0f5b0f9a11")
NOW = datetime(2026, 3, 1, 10, 0, 0, 900000, tzinfo=UTC)
CONTEXT = {f"{CONTEXT_PREFIX}/repo/name": "widgets"}


def body(**fields: Any) -> dict[str, Any]:
    job = job_of_fields(fields, named=str)
    made = run_body(job, context=CONTEXT, now=NOW, idempotency_key=KEY)
    # What is sent is what the server takes.
    NewRun.model_validate_json(json.dumps(made))
    return dict(made)


def test_what_is_not_said_is_not_sent() -> None:
    assert body(image="widgets:1") == {
        "idempotency_key": str(KEY),
        "start_time": "2026-03-01T10:00:00Z",
        "end_time": "2026-03-01T10:00:00Z",
        "results": [],
        "context": CONTEXT,
        "job": {"image": "widgets:1"},
    }


def test_every_field_finds_its_place() -> None:
    found = body(
        image="widgets:1", command=["a"], entrypoint=[], env={"A": "1"}, iterations=0, timeout="1500ms",
        allow_failure=True, outputs=["/x"], build_time=True, file_size=True, spec="quiet-8",
        priority=0, retry=False, project="widgets",
        branch="feature/x", hash="a" * 40, testbed="CI box", backdate=datetime(2026, 1, 1, tzinfo=UTC),
        start_point={"branch": "main", "reset": True}, results={"adapter": "json", "fold": "min"},
        thresholds={"models": {"latency": {"test": "t_test", "upper_boundary": 0.99}}, "reset": True},
    )  # fmt: skip
    assert found["job"] == {
        "image": "widgets:1", "cmd": ["a"], "entrypoint": [], "env": {"A": "1"}, "iter": 0, "timeout": 2,
        "allow_failure": True, "file_paths": ["/x"], "build_time": True, "file_size": True, "spec": "quiet-8",
        "priority": 0, "retry": False, "backdate": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    assert (found["project"], found["branch"], found["hash"], found["testbed"]) == (
        "widgets", "feature/x", "a" * 40, "CI box",
    )  # fmt: skip
    assert found["start_point"] == {"branch": "main", "reset": True}
    assert found["settings"] == {"adapter": "json", "fold": "min"}
    assert found["thresholds"] == {"models": {"latency": {"test": "t_test", "upper_boundary": 0.99}}, "reset": True}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "image"),
        ({"image": "./layout"}, "image"),
        ({"image": "/layout"}, "image"),
        ({"image": "oci:layout"}, "image"),
        ({"image": "x", "user": "ada"}, "user"),
        ({"image": "x", "workdir": "/tmp"}, "workdir"),
    ],
)
def test_what_no_runner_can_do_is_refused_here(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        body(**fields)
    assert caught.value.field == field
    assert caught.value.hint


@pytest.mark.parametrize(
    ("image", "named"),
    [
        ("widgets", True),
        ("widgets:v1", True),
        ("localhost:6610/widgets@sha256:" + "0" * 64, True),
        ("registry.example/widgets:v1", True),
        ("owner/widgets", False),
        ("ghcr.io/owner/widgets:v1", False),
        ("my_app", False),
        ("", False),
    ],
)
def test_image_that_names_a_project(image: str, named: bool) -> None:
    assert names_a_project(image) is named


def test_every_field_of_a_job_file_is_sent_or_refused_or_the_machines() -> None:
    known = {"image", "command", "entrypoint", "env", "iterations", "timeout", "allow_failure", "outputs", "build_time"}
    known |= {"file_size", "spec", "priority", "retry", "project", "branch", "hash", "testbed", "backdate"}
    assert set(JobFile.model_fields) == known | {"start_point", "results", "thresholds", "machine", "user", "workdir"}
