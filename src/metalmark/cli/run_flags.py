"""The flags of ``metalmark run``, and what they, the environment and a job file add up to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from metalmark.model import JOB_FILE_MAX_BYTES, InputError, JobFile, job_of_fields, parse_job_file

File = Annotated[
    str | None,
    typer.Argument(metavar="FILE.toml", help="Job file; flags beat what it says.", show_default=False),
]
Image = Annotated[
    str | None, typer.Option(metavar="IMAGE", help="What is run: name:tag or name@digest, as the server takes it.")
]
Spec = Annotated[str | None, typer.Option(metavar="SPEC", help="Spec of the machine: slug or UUID.")]
Entrypoint = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WORD...", help="Replace the image's ENTRYPOINT, and drop its CMD; '' is none.", show_default=False
    ),
]
Env = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="Set a variable; repeatable.", show_default=False)
]
Iterations = Annotated[
    int | None, typer.Option("--iter", metavar="N", min=0, help="Iterations; 1 without it, 0 runs nothing.")
]
JobTimeout = Annotated[
    str | None,
    typer.Option(
        "--job-timeout", metavar="TIME", help="Limit of one iteration: seconds, or 5m, 1h; else the server's."
    ),
]
AllowFailure = Annotated[bool, typer.Option("--allow-failure", help="Go on after a failed iteration, and exit with 0.")]
Output = Annotated[
    list[str] | None,
    typer.Option(
        "--output", "--file", metavar="PATH", help="File or glob that holds results; repeatable.", show_default=False
    ),
]
FileSize = Annotated[
    list[str] | None,
    typer.Option("--file-size", metavar="PATH", help="Measure the size of this file; repeatable.", show_default=False),
]
BuildTime = Annotated[bool, typer.Option("--build-time", help="Measure how long the command takes.")]
ProjectFlag = Annotated[
    str | None,
    typer.Option(metavar="PROJECT", help="Slug or UUID. Else METALMARK_PROJECT; else from the image or repository."),
]
Branch = Annotated[
    str | None, typer.Option(metavar="BRANCH", help="UUID, slug or name. Else METALMARK_BRANCH; else git's; else main.")
]
Hash = Annotated[str | None, typer.Option("--hash", metavar="HASH", help="The commit; git's without it.")]
StartPoint = Annotated[
    str | None,
    typer.Option(
        "--start-point", "--start-point-branch", metavar="BRANCH", help="Where the branch begins: UUID, slug or name."
    ),
]
Testbed = Annotated[
    str | None, typer.Option(metavar="TESTBED", help="UUID, slug or name. Else METALMARK_TESTBED; else the spec's.")
]
Adapter = Annotated[str | None, typer.Option(metavar="NAME", help="Format of the results; magic guesses.")]
Average = Annotated[Literal["mean", "median"] | None, typer.Option(help="What stands for a sample.")]
Fold = Annotated[
    Literal["min", "max", "mean", "median"] | None, typer.Option(help="Make one result of all iterations.")
]
Backdate = Annotated[
    str | None, typer.Option(metavar="TIME", help="Instant that the report begins at.", show_default=False)
]
Priority = Annotated[int | None, typer.Option(metavar="N", min=0, max=1000, help="Higher goes first; 100 without it.")]
Retry = Annotated[
    bool, typer.Option("--retry", help="After a fault that is not the benchmark's, the job may be tried once more.")
]
Detach = Annotated[bool, typer.Option("--detach", help="Submit the job, name it, and do not wait for it.")]
OnTheFly = Annotated[
    bool, typer.Option("--ci-on-the-fly", help="In CI, let the server name the project after the repository.")
]

FLAGS: Mapping[str, str] = {
    "image": "--image",
    "command": "words after --",
    "spec": "--spec",
    "entrypoint": "--entrypoint",
    "env": "--env",
    "iterations": "--iter",
    "timeout": "--job-timeout",
    "allow_failure": "--allow-failure",
    "outputs": "--output",
    "file_size": "--file-size",
    "build_time": "--build-time",
    "project": "--project",
    "branch": "--branch",
    "hash": "--hash",
    "testbed": "--testbed",
    "backdate": "--backdate",
    "priority": "--priority",
    "retry": "--retry",
    "start_point": "--start-point",
    "results": "--adapter, --average, --fold",
}
"""The flag that gives each field of a job file."""
_OF_ENVIRONMENT = {"project": "PROJECT", "branch": "BRANCH", "testbed": "TESTBED"}


def read_job_file(path: str) -> dict[str, object]:
    """Read and check a job file. Blocking.

    Raises:
        InputError: It cannot be read, or a field of it cannot be used.
    """
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(JOB_FILE_MAX_BYTES + 1)
    except OSError as error:
        raise InputError("FILE", path, error.strerror or "it cannot be read") from None
    return parse_job_file(content, name=path)


def job_of(*, file: str | None, fields: Mapping[str, object], environment: Mapping[str, str]) -> JobFile:
    """Return the job that flags, the environment and a job file add up to, in this order.

    Args:
        file: The job file; None without one.
        fields: What flags say, by the fields of a job file; None is not said. Sections are merged with the file's.
        environment: Where ``METALMARK_PROJECT``, ``_BRANCH`` and ``_TESTBED``, and those of ``BENCHER_``, are read.

    Raises:
        InputError: Something of it cannot be used; names the flag, variable or line, and the value.
    """
    said = {} if file is None else read_job_file(file)
    origin = {name: f"{file}: {name}" for name in said}
    for name, suffix in _OF_ENVIRONMENT.items():
        for variable in (f"METALMARK_{suffix}", f"BENCHER_{suffix}"):
            if environment.get(variable):
                said[name], origin[name] = environment[variable], variable
                break
    for name, value in fields.items():
        if value is None:
            continue
        before = said.get(name)
        said[name] = {**before, **value} if isinstance(before, Mapping) and isinstance(value, Mapping) else value
        origin[name] = FLAGS[name]

    def named(field: str) -> str:
        first, dot, rest = field.partition(".")
        found = origin.get(first, first)
        return f"{found}{dot}{rest}" if ": " in found else found

    return job_of_fields(said, named=named)


def variables(entries: Sequence[str] | None) -> dict[str, str] | None:
    """Return the variables of ``--env``, the last of a name counting; None without any.

    Raises:
        InputError: One is not ``NAME=VALUE``.
    """
    if not entries:
        return None
    found = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals or not name:
            raise InputError("--env", name or "=…", "a variable is NAME=VALUE, and the value may be empty")
        found[name] = value
    return found


def moment(text: str) -> datetime:
    """Return the instant of ``--backdate``.

    Raises:
        InputError: It is none.
    """
    from metalmark.cli.report import moment as instant

    return instant(text, field="--backdate")
