from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metalmark.cli.run_flags import FLAGS, job_of, variables
from metalmark.model import InputError, JobFile


def job(tmp_path: Path, text: str, environment: dict[str, str] | None = None, **fields: Any) -> JobFile:
    path = tmp_path / "job.toml"
    path.write_text(text)
    return job_of(file=str(path), fields=fields, environment=environment or {})


def test_flags_beat_the_environment_and_that_the_file(tmp_path: Path) -> None:
    text = "project = 'file'\nbranch = 'file'\ntestbed = 'file'\nimage = 'file'"
    environment = {"METALMARK_PROJECT": "ours", "BENCHER_PROJECT": "theirs", "BENCHER_BRANCH": "theirs"}
    found = job(tmp_path, text, environment, project="flag", image=None)
    assert (found.project, found.branch, found.testbed, found.image) == ("flag", "theirs", "file", "file")
    assert job(tmp_path, text, environment).project == "ours"


def test_sections_are_taken_together(tmp_path: Path) -> None:
    text = "[env]\nA = 'file'\nB = 'file'\n[results]\nadapter = 'json'\nfold = 'min'"
    found = job(tmp_path, text, env={"B": "flag"}, results={"fold": "max"})
    assert found.env == {"A": "file", "B": "flag"}
    assert (found.results.adapter, found.results.fold) == ("json", "max")


@pytest.mark.parametrize(
    ("text", "environment", "fields", "told"),
    [
        ("spec = 'A B'", {}, {}, "job.toml: spec"),
        ("", {"METALMARK_PROJECT": "A B"}, {}, "METALMARK_PROJECT"),
        ("", {"BENCHER_BRANCH": "a b"}, {}, "BENCHER_BRANCH"),
        ("timeout = 5", {}, {"timeout": "soon"}, "--job-timeout"),
        ("", {}, {"command": ["x"] * 65}, "words after --"),
    ],
)
def test_error_names_where_the_value_came_from(
    tmp_path: Path, text: str, environment: dict[str, str], fields: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError) as caught:
        job(tmp_path, text, environment, **fields)
    assert caught.value.field.endswith(told)


def test_last_variable_of_a_name_counts_and_values_stay_whole() -> None:
    assert variables(["A=1", "A=b=c", "B="]) == {"A": "b=c", "B": ""}
    assert variables([]) is None
    for wrong in ("A", "=1"):
        with pytest.raises(InputError):
            variables([wrong])


def test_every_flag_gives_a_field() -> None:
    assert set(FLAGS) <= set(JobFile.model_fields)
