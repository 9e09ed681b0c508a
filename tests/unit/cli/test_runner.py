from __future__ import annotations

from pathlib import Path

import pytest
import typer.main

from metalmark.cli import run_command
from metalmark.cli.application import app
from metalmark.cli.run_command import RunRequest
from metalmark.model import GIB, InputError


def run(*words: str) -> None:
    typer.main.get_command(app)(args=["runner", "run", *words], prog_name="metalmark", standalone_mode=False)


def test_second_image_is_taken_for_a_command_that_lacks_its_dashes() -> None:
    with pytest.raises(InputError, match="one image is named already") as caught:
        run("img", "sh", "a b")
    assert (caught.value.field, caught.value.value) == ("IMAGE", "sh")
    assert caught.value.hint == "put a command after --: -- sh 'a b'"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[RunRequest]:
    """What would be carried out."""
    found: list[RunRequest] = []

    def keep(request: RunRequest, environment: object) -> int:
        found.append(request)
        return 0

    monkeypatch.setattr(run_command, "carry_out", keep)
    return found


FILE = """
image = "./layout"
command = ["--quick", "a b"]
entrypoint = []
iterations = 3
timeout = "1.5m"
outputs = ["/tmp/*.json"]
file_size = true
project = "widgets"
[env]
A = "file"
B = "file"
[machine]
sandbox = "qemu"
vcpus = 2
memory = "1G"
network = true
"""


def test_job_file_says_what_no_flag_says(tmp_path: Path, asked: list[RunRequest]) -> None:
    file = tmp_path / "job.toml"
    file.write_text(FILE)
    run(str(file), "--memory", "2G", "--env", "B=flag")
    [request] = asked
    spec = request.spec
    assert spec.image == f"{tmp_path}/./layout"
    assert (spec.overrides.cmd, spec.overrides.entrypoint) == (("--quick", "a b"), ())
    assert spec.overrides.env == {"A": "file", "B": "flag"}
    assert (spec.iterations, spec.timeout_s, spec.outputs, spec.sandbox) == (3, 90.0, ("/tmp/*.json",), "qemu")
    assert (spec.resources.vcpus, spec.resources.memory_bytes, spec.network) == (2, 2 * GIB, True)
    assert spec.resources.disk_bytes == GIB
    assert [warning for warning in request.warnings if "file_size" in warning]


def test_words_after_dashes_and_image_flag_beat_the_job_file(tmp_path: Path, asked: list[RunRequest]) -> None:
    file = tmp_path / "job.toml"
    file.write_text(FILE)
    run(str(file), "--image", "other", "--", "slow")
    assert (asked[0].spec.image, asked[0].spec.overrides.cmd) == ("other", ("slow",))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("command = ['x']", "job.toml: image is missing"),
        ("image = 'x'\n[machine]\nmemory = 1", "job.toml: machine.memory is '1'"),
        ("image = 'x'\nworkdir = 'here'", "job.toml: workdir is 'here'"),
        ("image = 'x'\niterations = 'many'", "job.toml: iterations is 'many'"),
        ("image = 'x'\n[machine]\ncpus = 'all'", "job.toml: machine.cpus is 'all'"),
        ("image =", "it is not TOML"),
    ],
)
def test_error_of_a_job_file_names_its_field(
    tmp_path: Path, text: str, told: str, asked: list[RunRequest], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.toml"
    file.write_text(text)
    run(str(file))
    assert told in capsys.readouterr().err
    assert asked == []


def test_image_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    run("img", "--image", "other")
    assert "--image other names one already" in capsys.readouterr().err
