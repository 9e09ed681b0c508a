from __future__ import annotations

import string
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import InputError, JobFile, SandboxName, image_beside, job_of_fields, parse_job_file

FULL = b"""
image = "widgets:latest"
command = ["--quick"]
iterations = 0
timeout = "1.5m"
backdate = 2026-01-31T10:00:00+01:00
[env]
A = ""
[start_point]
branch = "feature/x"
[results]
fold = "min"
[thresholds.models."Peak RSS"]
test = "static"
upper_boundary = 5
[machine]
sandbox = "container"
memory = 512
"""


def read(text: bytes, name: str = "job.toml") -> JobFile:
    return job_of_fields(parse_job_file(text, name=name), named=str)


def test_fields_are_read_and_the_rest_is_left_open() -> None:
    job = read(FULL)
    assert (job.image, job.command, job.entrypoint, job.iterations) == ("widgets:latest", ("--quick",), None, 0)
    assert job.timeout == 90.0
    assert job.backdate == datetime(2026, 1, 31, 9, tzinfo=UTC)
    assert (job.env, job.results.fold) == ({"A": ""}, "min")
    assert job.start_point is not None
    assert job.start_point.branch == "feature/x"
    assert job.thresholds.models["Peak RSS"].upper_boundary == 5.0
    assert (job.machine.sandbox, job.machine.memory) == (SandboxName.CONTAINER, "512")
    assert read(b"") == JobFile()


@pytest.mark.parametrize(
    ("text", "field", "why"),
    [
        ("imag = 'x'", "imag", "no such field"),
        ("[machine]\nvcpu = 1", "machine.vcpu", "no such field"),
        ("[thresholds.models.latency]\ntest = 'iqr'\nupper = 1", "thresholds.models.latency.upper", "no such field"),
        ("[thresholds.models.latency]", "thresholds.models.latency.test", "it is missing"),
        ("[thresholds.models.latency]\ntest = 'best'", "thresholds.models.latency.test", "'t_test'"),
        ("timeout = '5 lightyears'", "timeout", "not a unit of time"),
        ("timeout = true", "timeout", "number"),
        ("timeout = 0", "timeout", "greater than 0"),
        ("iterations = -1", "iterations", "greater than or equal to 0"),
        ("iterations = '3'", "iterations", "whole number"),
        ("allow_failure = 1", "allow_failure", "true or false"),
        ("command = 'x y'", "command", "list of texts"),
        ("outputs = ['a', 3]", "outputs.1", "a text is needed"),
        ('command = ["a\\u0000"]', "command", "NUL"),
        ("spec = 'A B'", "spec", "not a slug"),
        ("hash = 'abc'", "hash", "40 hex digits"),
        ("branch = 'a..b'", "branch", "branch name"),
        ("backdate = 2026-01-01T00:00:00", "backdate", "offset"),
        ("machine.memory = '1 Q'", "machine.memory", "not a unit of bytes"),
        ("machine = 3", "machine", "table"),
        ("image = ''", "image", "at least 1 character"),
    ],
)
def test_error_names_the_field(text: str, field: str, why: str) -> None:
    with pytest.raises(InputError) as caught:
        read(text.encode())
    assert caught.value.field == f"job.toml: {field}"
    assert why in caught.value.why


def test_error_of_an_environment_does_not_show_its_values() -> None:
    for text in (b"env = {A = 1234567}", b"env = {'A=B' = '1234567'}"):
        with pytest.raises(InputError) as caught:
            read(text)
        assert "1234567" not in str(caught.value)


@pytest.mark.parametrize("content", [b"a =", b"\xff", b"[" * 100_000, b"# " + b"x" * 1024 * 1024])
def test_what_is_no_job_file_is_refused(content: bytes) -> None:
    with pytest.raises(InputError) as caught:
        parse_job_file(content, name="job.toml")
    assert caught.value.value == "job.toml"


def test_hint_of_an_unknown_field_names_those_of_its_section() -> None:
    with pytest.raises(InputError) as caught:
        read(b"[start_point]\nbranhc = 'x'")
    assert caught.value.hint == "there are branch, hash, max_versions, clone_thresholds, reset"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(JobFile.model_fields)) | st.text(string.ascii_letters), _VALUES))
def test_any_fields_are_a_job_or_an_error_for_people(fields: dict[str, Any]) -> None:
    try:
        job = job_of_fields(fields, named=str)
    except InputError as error:
        assert error.why
        assert "Input should" not in error.why
    else:
        assert job_of_fields(job.model_dump(exclude_unset=True), named=str) == job


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("./layout", "jobs/./layout"),
        ("../a.tar", "jobs/../a.tar"),
        ("oci:./layout", "oci:jobs/./layout"),
        (".", "jobs/."),
        ("widgets:latest", "widgets:latest"),
        ("/layout", "/layout"),
        ("docker://./x", "docker://./x"),
        (".hidden/x", ".hidden/x"),
    ],
)
def test_path_of_an_image_begins_at_the_file(image: str, found: str) -> None:
    assert image_beside(image, "jobs") == found
