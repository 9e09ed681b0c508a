from __future__ import annotations

import pytest

from metalmark.model import DEFAULT_PATH, ImageConfig, ProcessOverrides, ProcessRefused, resolve_process

IMAGE = ImageConfig(entrypoint=("/entry", "-e"), cmd=("default",), env=("A=1", "B=x=y"), workdir="/work", user="app")
ALONE = ProcessOverrides()


def test_the_image_as_it_is() -> None:
    process = resolve_process(IMAGE, ALONE)
    assert process.argv == ("/entry", "-e", "default")
    assert process.env == (f"PATH={DEFAULT_PATH}", "A=1", "B=x=y")
    assert (process.workdir, process.user) == ("/work", "app")


def test_a_command_replaces_only_the_default_arguments() -> None:
    assert resolve_process(IMAGE, ProcessOverrides(cmd=("mine",))).argv == ("/entry", "-e", "mine")


def test_an_entrypoint_drops_the_images_arguments() -> None:
    assert resolve_process(IMAGE, ProcessOverrides(entrypoint=("/other",))).argv == ("/other",)
    assert resolve_process(IMAGE, ProcessOverrides(entrypoint=("/other",), cmd=("x",))).argv == ("/other", "x")


def test_an_empty_entrypoint_leaves_the_command_alone() -> None:
    assert resolve_process(IMAGE, ProcessOverrides(entrypoint=(), cmd=("/bin/x",))).argv == ("/bin/x",)


def test_variables_of_the_user_win_and_no_name_comes_twice() -> None:
    config = ImageConfig(cmd=("x",), env=("A=1", "A=2", "PATH=/image", "broken", "=nameless"))
    process = resolve_process(config, ProcessOverrides(env={"A": "3", "NEW": ""}))
    assert process.env == ("PATH=/image", "A=3", "NEW=")


def test_where_nothing_is_said_it_is_root_in_the_root() -> None:
    process = resolve_process(ImageConfig(cmd=("x",)), ALONE)
    assert (process.workdir, process.user) == ("/", "")


def test_user_and_workdir_of_the_caller_win() -> None:
    process = resolve_process(IMAGE, ProcessOverrides(user="0:0", workdir="/tmp"))
    assert (process.workdir, process.user) == ("/tmp", "0:0")


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        (ImageConfig(), ALONE),
        (IMAGE, ProcessOverrides(entrypoint=())),
        (ImageConfig(cmd=("",)), ALONE),
        (IMAGE, ProcessOverrides(cmd=("a\0b",))),
        (IMAGE, ProcessOverrides(env={"A": "\0"})),
    ],
)
def test_what_cannot_be_started_is_refused(config: ImageConfig, overrides: ProcessOverrides) -> None:
    with pytest.raises(ProcessRefused):
        resolve_process(config, overrides)
