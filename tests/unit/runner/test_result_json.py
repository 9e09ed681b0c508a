from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from tests.unit.runner.surroundings import surroundings

from metalmark.model import JobSpec
from metalmark.runner import RunObserver, RunRecord, execute, write_result
from metalmark.testing.fake_sandbox import FakeCommand, FakeDriver

pytestmark = pytest.mark.anyio


async def record(folder: Path, command: FakeCommand, **changes: object) -> RunRecord:
    spec = replace(JobSpec(image="fake", outputs=("*",)), **changes)  # type: ignore[arg-type]
    return await execute(spec, context=surroundings(folder, FakeDriver(command)), observer=RunObserver())


async def test_written_object_holds_what_was_printed(tmp_path: Path) -> None:
    command = FakeCommand(stdout=["grüße".encode()], stderr=[b"\xfe"], files={"/t": b"text", "/b": b"\xff"})
    target = StringIO()
    write_result(await record(tmp_path, command, iterations=2), target)
    result = json.loads(target.getvalue())
    assert target.getvalue().count("\n") == 1
    assert [iteration["iteration"] for iteration in result["iterations"]] == [1, 2]
    first = result["iterations"][0]
    assert (first["stdout"]["text"], first["stdout"]["base64"]) == ("grüße", None)
    assert (first["stderr"]["text"], first["stderr"]["base64"]) == ("�", "/g==")
    assert [(file["text"], file["base64"]) for file in first["output"]["files"]] == [("text", None), (None, "/w==")]
