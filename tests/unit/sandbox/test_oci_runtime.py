from __future__ import annotations

from pathlib import Path

import pytest

from metalmark.model import ToolMissing
from metalmark.sandbox.oci_runtime import MAX_DESCRIPTORS, OciRuntime, find_runtime, renumbered


def test_the_command_line() -> None:
    argv = OciRuntime(path="/opt/crun").run_argv(
        name="b", bundle=Path("/w/bundle"), state=Path("/w/runtime"), log=Path("/w/log"), descriptors=2
    )
    assert argv[0] == "/opt/crun"
    assert argv[argv.index("--preserve-fds") + 1] == "2"
    assert argv.index("--root") < argv.index("run") < argv.index("--bundle"), "options of the program come first"
    assert argv[-1] == "b"


def test_descriptors_are_numbered_from_three() -> None:
    argv = renumbered([Path("/c/one file"), Path("/c/two")], ["/bin/run", "a b"])
    assert argv[2] == 'exec 3<&0 4>"${1}" 5>"${2}" </dev/null; shift 2; exec "$@"'
    assert argv[4:] == ["/c/one file", "/c/two", "/bin/run", "a b"]
    renumbered([Path("/f")] * (MAX_DESCRIPTORS - 1), ["x"])
    with pytest.raises(ValueError, match="renumbers 7"):
        renumbered([Path("/f")] * MAX_DESCRIPTORS, ["x"])


def test_a_path_is_taken_as_it_is_and_must_be_there(tmp_path: Path) -> None:
    program = tmp_path / "youki"
    program.write_text("#!/bin/sh\n")
    assert find_runtime(str(program)).name == "youki"
    with pytest.raises(ToolMissing, match="does not exist"):
        find_runtime(str(tmp_path / "none"))


def test_runc_first_then_crun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metalmark.sandbox.oci_runtime.find_tool", _found({"crun": "/usr/bin/crun"}))
    assert find_runtime(None).path == "/usr/bin/crun"
    monkeypatch.setattr("metalmark.sandbox.oci_runtime.find_tool", _found({"crun": "/c", "runc": "/r"}))
    assert find_runtime(None).path == "/r"
    monkeypatch.setattr("metalmark.sandbox.oci_runtime.find_tool", _found({}))
    with pytest.raises(ToolMissing, match="none of runc, crun") as raised:
        find_runtime(None)
    assert raised.value.hint == "apt-get install runc"


def _found(tools: dict[str, str]):  # noqa: ANN202 - a function like find_tool
    def find(name: str, *, hint: str = "") -> str:
        if name not in tools:
            raise ToolMissing(f"{name} is not installed", hint=hint)
        return tools[name]

    return find
