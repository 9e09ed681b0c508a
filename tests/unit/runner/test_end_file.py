from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from pydantic import ValidationError

from metalmark.model import Outcome
from metalmark.runner.end_file import BARE_DOCUMENT, EndFile, EndKind, EndOfJob, bare_end, has_results, short_error
from metalmark.wire import IterationEnd

JOB = UUID("0197c3d4-0000-7000-8000-000000000001")


def test_file_gives_back_the_end_that_it_was_written_of() -> None:
    ends = (IterationEnd(iteration=1, exit_code=3, outcome=Outcome.EXITED, wall_s=0.5),)
    end = EndOfJob(kind=EndKind.FAILED, error="boom", infrastructure=True, iterations=ends)
    written = EndFile.of(JOB, 7, end, checksum="a" * 64, size_bytes=3)
    document = Path("7.json")
    assert EndFile.model_validate_json(written.text).spooled(document) == written.spooled(document)
    spooled = written.spooled(document)
    assert (spooled.job, spooled.lease, spooled.error, spooled.infrastructure) == (JOB, 7, "boom", True)
    assert spooled.iterations == ends
    assert has_results(spooled)


def test_end_without_results_says_so() -> None:
    ended = EndOfJob(kind=EndKind.CANCELED, iterations=(IterationEnd(iteration=1, exit_code=0),))
    spooled = bare_end(JOB, 1, ended).spooled(Path("1.json"))
    assert spooled.iterations == ()
    assert spooled.size_bytes == len(BARE_DOCUMENT)
    assert not has_results(spooled)


def test_file_of_another_format_is_not_read() -> None:
    text = bare_end(JOB, 1, EndOfJob(kind=EndKind.CANCELED)).text
    with pytest.raises(ValidationError):
        EndFile.model_validate_json(text.replace(b'"format":1', b'"format":2'))


@pytest.mark.parametrize(("given", "kept"), [("a" * 4096, "a" * 4096), ("a" * 4097, "a" * 4095 + "…"), ("\udc80", "?")])
def test_error_is_bounded_and_utf_8(given: str, kept: str) -> None:
    assert short_error(given) == kept
    kept.encode()
