"""Scenarios on what an image says: its command, environment, files, users."""

from __future__ import annotations

from dataclasses import replace

from metalmark.model import ImageConfig, JobSpec, Outcome, ProcessOverrides, RootfsMode
from metalmark.runner.selftest_checks import both, ended, ok, prints, refused, shows
from metalmark.runner.selftest_images import MESSAGE, PROGRAM
from metalmark.runner.selftest_scenario import Scenario, Seen, expect

_JOB = JobSpec(image="", timeout_s=60)
_SH = "/bin/sh"
_LARGE = {f"LARGE_{number}": f"{number}-" + "v" * 1000 for number in range(100)}


def _override(**changes: object) -> JobSpec:
    return replace(_JOB, overrides=ProcessOverrides(**changes))  # type: ignore[arg-type]  # names of ProcessOverrides


def _nothing_to_run(seen: Seen) -> None:
    error = seen.result.error
    expect(error is not None and error.type == "ProcessRefused", f"it was not refused: {error}")
    expect(seen.result.exit_code == 125, f"exit code {seen.result.exit_code}")


def _tester(seen: Seen) -> None:
    ok(seen)
    expect(seen.out.startswith("uid=1234 gid=1234 "), f"it ran as {seen.out!r}")
    expect("4321" in seen.out, f"the supplementary group 4321 is missing: {seen.out!r}")


def _layers(seen: Seen) -> None:
    prints("layer 1\nlayer 2\nlayer 3\nfrom layer 3\n")(seen)


IMAGE_SCENARIOS = (
    Scenario(
        name="basic_execution",
        about="a command runs and its output comes back",
        words=("echo", "hello from the box"),
        check=prints("hello from the box\n"),
    ),
    Scenario(
        name="environment_variables",
        about="ENV of the image",
        config=ImageConfig(cmd=(PROGRAM, "env", "GREETING"), env=("GREETING=bonjour",)),
        check=prints("GREETING=bonjour\n"),
    ),
    Scenario(
        name="working_directory",
        about="WORKDIR of the image",
        config=ImageConfig(cmd=(PROGRAM, "pwd"), workdir="/data"),
        check=prints("/data\n"),
    ),
    Scenario(
        name="entrypoint_with_args",
        about="ENTRYPOINT and CMD together",
        config=ImageConfig(entrypoint=(PROGRAM, "echo", "from"), cmd=("both", "words")),
        check=prints("from both words\n"),
    ),
    Scenario(
        name="shell_form_cmd",
        about="CMD as a string",
        config=ImageConfig(cmd=(_SH, "-c", "echo shell form")),
        check=prints("shell form\n"),
    ),
    Scenario(
        name="entrypoint_only",
        about="ENTRYPOINT without CMD",
        config=ImageConfig(entrypoint=(PROGRAM, "echo", "entrypoint only")),
        check=prints("entrypoint only\n"),
    ),
    Scenario(
        name="shell_form_entrypoint",
        about="ENTRYPOINT as a string",
        config=ImageConfig(entrypoint=(_SH, "-c", "echo shell entrypoint")),
        check=prints("shell entrypoint\n"),
    ),
    Scenario(
        name="entrypoint_shell_with_cmd",
        about="a shell ENTRYPOINT gets CMD as its $0",
        config=ImageConfig(entrypoint=(_SH, "-c", "echo entry $0"), cmd=("zero",)),
        check=prints("entry zero\n"),
    ),
    Scenario(
        name="no_cmd_no_entrypoint",
        about="an image with nothing to run is refused",
        config=ImageConfig(),
        check=_nothing_to_run,
    ),
    Scenario(
        name="distroless_glibc_image",
        about="a dynamically linked program with its loader and libraries, and no shell",
        image="dynamic",
        check=prints("dynamically linked\n"),
        tolerates=frozenset(("ToolMissing",)),
    ),
    Scenario(
        name="multi_layer_image",
        about="files of three layers, the upper one winning",
        image="layered",
        config=ImageConfig(
            cmd=(PROGRAM, "cat", "/file-1", ";", "cat", "/file-2", ";", "cat", "/file-3", ";", "cat", "/shared")
        ),
        check=_layers,
    ),
    Scenario(
        name="image_with_symlinks", about="an absolute link in the image", words=("cat", "/link"), check=prints(MESSAGE)
    ),
    Scenario(
        name="file_content_preserved",
        about="a file of a layer",
        words=("cat", "/data/message.txt"),
        check=prints(MESSAGE),
    ),
    Scenario(
        name="file_permissions_preserved",
        about="a program of a layer is still one",
        words=("mode", "/data/program", ";", "mode", "/data/plain", ";", "exec", "/data/program", "echo", "it runs"),
        check=both(shows("mode=755", "mode=644"), ok),
    ),
    Scenario(
        name="directory_permissions_preserved",
        about="mode of a folder",
        words=("mode", "/data/private"),
        check=prints("mode=750\n"),
    ),
    Scenario(
        name="user_by_name",
        about="USER by name, with supplementary groups",
        config=ImageConfig(cmd=(PROGRAM, "id"), user="tester"),
        check=_tester,
    ),
    Scenario(
        name="user_by_number",
        about="--user with numbers that the image does not know",
        words=("id",),
        spec=_override(user="77:88"),
        check=prints("uid=77 gid=88 groups=\n"),
    ),
    Scenario(
        name="unknown_user",
        about="a user that the image does not have is refused by name",
        words=("id",),
        spec=_override(user="nobody-knows"),
        check=refused("nobody-knows"),
    ),
    Scenario(
        name="missing_working_directory",
        about="a working directory that the image does not have is refused by name",
        words=("pwd",),
        spec=_override(workdir="/not/there"),
        check=refused("/not/there"),
    ),
    Scenario(
        name="command_not_found",
        about="127, as shells have it",
        config=ImageConfig(cmd=("no-such-command",)),
        check=ended(Outcome.NOT_FOUND, 127),
    ),
    Scenario(
        name="command_not_executable",
        about="126, as shells have it",
        config=ImageConfig(cmd=("/data/plain",)),
        check=ended(Outcome.NOT_EXECUTABLE, 126),
    ),
    Scenario(
        name="large_env",
        about="a hundred variables of a thousand characters",
        words=("envlen", "LARGE_0", ";", "envlen", "LARGE_99"),
        spec=_override(env=_LARGE),
        check=prints("LARGE_0 has 1002\nLARGE_99 has 1003\n"),
    ),
    Scenario(
        name="env_var_passthrough",
        about="variables that loaders read are not dropped",
        words=("env", "LD_PRELOAD", ";", "env", "LD_LIBRARY_PATH", ";", "env", "EMPTY"),
        spec=_override(env={"LD_PRELOAD": "/none.so", "LD_LIBRARY_PATH": "/none", "EMPTY": ""}),
        check=prints("LD_PRELOAD=/none.so\nLD_LIBRARY_PATH=/none\nEMPTY=\n"),
    ),
    Scenario(
        name="special_chars_in_env",
        about="blanks, = and quotes in values",
        words=("env", "A", ";", "env", "B", ";", "env", "C"),
        spec=_override(env={"A": "with blanks", "B": "a=b=c", "C": "\"'$`\\"}),
        check=prints("A=with blanks\nB=a=b=c\nC=\"'$`\\\n"),
    ),
    Scenario(
        name="cli_entrypoint_override",
        about="--entrypoint drops the image's CMD",
        config=ImageConfig(entrypoint=(PROGRAM, "echo", "image"), cmd=("cmd",)),
        spec=_override(entrypoint=(PROGRAM, "echo", "override")),
        check=prints("override\n"),
    ),
    Scenario(
        name="cli_cmd_override",
        about="--cmd replaces CMD and keeps ENTRYPOINT",
        config=ImageConfig(entrypoint=(PROGRAM, "echo"), cmd=("image",)),
        spec=_override(cmd=("override",)),
        check=prints("override\n"),
    ),
    Scenario(
        name="cli_entrypoint_and_cmd_override",
        about="both at once",
        config=ImageConfig(entrypoint=("/none",), cmd=("image",)),
        spec=_override(entrypoint=(PROGRAM, "echo"), cmd=("both", "given")),
        check=prints("both given\n"),
    ),
    Scenario(
        name="cli_entrypoint_no_image_entrypoint",
        about="--entrypoint with an image that has CMD only",
        config=ImageConfig(cmd=("image",)),
        spec=_override(entrypoint=(PROGRAM, "echo", "override")),
        check=prints("override\n"),
    ),
    Scenario(
        name="cli_env_override",
        about="--env beats ENV",
        config=ImageConfig(cmd=(PROGRAM, "env", "A"), env=("A=image",)),
        spec=_override(env={"A": "override"}),
        check=prints("A=override\n"),
    ),
    Scenario(
        name="cli_env_add",
        about="--env beside ENV",
        config=ImageConfig(cmd=(PROGRAM, "env", "A", ";", "env", "B"), env=("A=image",)),
        spec=_override(env={"B": "added"}),
        check=prints("A=image\nB=added\n"),
    ),
    Scenario(
        name="cli_env_multiple",
        about="several --env",
        words=("env", "A", ";", "env", "B"),
        spec=_override(env={"A": "1", "B": "2"}),
        check=prints("A=1\nB=2\n"),
    ),
    Scenario(
        name="writable_ext4_root",
        about="--rootfs ext4: the image's files, writable",
        words=("cat", "/link", ";", "write", "/data/message.txt", "changed", ";", "cat", "/data/message.txt"),
        spec=replace(_JOB, rootfs=RootfsMode.EXT4),
        check=prints(MESSAGE + "changed"),
        tolerates=frozenset(("NoPermission",)),
    ),
)
