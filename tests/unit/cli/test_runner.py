from __future__ import annotations

import pytest
import typer.main

from metalmark.cli.application import app
from metalmark.model import InputError


def run(*words: str) -> None:
    typer.main.get_command(app)(args=["runner", "run", *words], prog_name="metalmark", standalone_mode=False)


def test_second_image_is_taken_for_a_command_that_lacks_its_dashes() -> None:
    with pytest.raises(InputError, match="one image is named already") as caught:
        run("img", "sh", "a b")
    assert (caught.value.field, caught.value.value) == ("IMAGE", "sh")
    assert caught.value.hint == "put a command after --: -- sh 'a b'"


def test_image_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    run("img", "--image", "other")
    assert "--image other names one already" in capsys.readouterr().err
