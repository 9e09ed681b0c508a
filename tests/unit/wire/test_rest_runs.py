from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from metalmark.wire import NewRun

BODY = {"start_time": "2026-03-01T10:00:00Z", "end_time": "2026-03-01T10:00:42Z", "results": []}
OPTIONAL = set(NewRun.model_fields) - set(BODY)


def job(**fields: object) -> NewRun:
    return NewRun.model_validate({**BODY, "job": {"image": "adder:v3", **fields}})


def test_null_is_as_good_as_absent() -> None:
    assert NewRun.model_validate({**BODY, **dict.fromkeys(OPTIONAL)}) == NewRun.model_validate(BODY)


def test_bounds_of_a_job_are_inclusive() -> None:
    run = job(
        entrypoint=["x"] * 64,
        cmd=[""] * 64,
        env={f"V{number}": "" for number in range(255)},
        file_paths=["/x"] * 255,
        timeout=2**31 - 1,
        iter=0,
        priority=1000,
    )
    assert run.job is not None
    assert run.job.iter == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"image": ""},
        {"image": "x" * 4097},
        {"entrypoint": ["x"] * 65},
        {"cmd": ["x"] * 65},
        {"cmd": "x"},
        {"cmd": ["a\0b"]},
        {"cmd": ["\ud800"]},
        {"env": {"\ud800": ""}},
        {"env": {"A": "\udfff"}},
        {"image": "\ud800"},
        {"file_paths": ["x"] * 256},
        {"file_paths": ["/a\0"]},
        {"env": {f"V{number}": "" for number in range(256)}},
        {"env": {"A": 1}},
        {"env": {"": "x"}},
        {"env": {"A=B": "x"}},
        {"env": {"A": "x\0"}},
        {"timeout": 0},
        {"timeout": 2**31},
        {"timeout": 60.0},
        {"timeout": "60"},
        {"timeout": True},
        {"iter": -1},
        {"iter": 2**32},
        {"build_time": 1},
        {"spec": "No Slug"},
        {"backdate": "yesterday"},
        {"priority": 1001},
        {"priority": -1},
        {"retry": "yes"},
    ],
)
def test_a_job_out_of_bounds_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        job(**fields)


@pytest.mark.parametrize("context", [{"k": 1}, {"k": None}, ["k"], "k"])
def test_a_context_is_texts_by_texts(context: object) -> None:
    with pytest.raises(ValidationError):
        NewRun.model_validate({**BODY, "context": context})
