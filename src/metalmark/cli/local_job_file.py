"""A job file, and flags that beat it, into the job of ``runner run``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from metalmark.cli.job_options import JobOptions
from metalmark.model import InputError, JobSpec

if TYPE_CHECKING:
    from metalmark.model import JobFile

_FLAGS: Mapping[str, str] = {
    "sandbox": "machine.sandbox",
    "timeout": "timeout",
    "iterations": "iterations",
    "allow_failure": "allow_failure",
    "entrypoint": "entrypoint",
    "cmd": "command",
    "user": "user",
    "workdir": "workdir",
    "network": "machine.network",
    "output": "outputs",
    "vcpus": "machine.vcpus",
    "memory": "machine.memory",
    "disk": "machine.disk",
    "cpus": "machine.cpus",
    "rootfs": "machine.rootfs",
    "platform": "machine.platform",
}
"""The field of a job file that a flag beats, by the name of the flag's option."""
_ELSEWHERE = ("build_time", "file_size")
"""What would change a result, and is measured for servers only."""


def is_job_file(image: str) -> bool:
    """Whether what stands for an image is a job file: by its name, for no image ends like that."""
    return image.endswith(".toml")


def with_job_file(options: JobOptions, path: str, *, image: str | None, given: Collection[str]) -> JobSpec:
    """Return the job of a file, of which flags change what they say. Blocking: reads the file.

    Args:
        options: The flags' values; gets warnings.
        path: The job file.
        image: From ``--image``.
        given: Names of the options that were given; the others are defaults, and the file beats those.

    Raises:
        InputError: Something of it cannot be used; names the flag, or the file and its field, and the value.
    """
    from metalmark.cli.run_flags import read_job_file
    from metalmark.model import image_beside, job_of_fields

    fields = read_job_file(path)
    job = job_of_fields(fields, named=lambda field: f"{path}: {field}")
    found = image or (image_beside(job.image, str(Path(path).parent)) if job.image is not None else "")
    if not found:
        raise InputError(f"{path}: image", None, "a job needs one here", hint="name it there, or with --image")
    values = {name: value for name, value in _values(job).items() if value is not None and name not in given}
    if options.command:
        values.pop("cmd", None)
    values["env"] = (*(f"{name}={value}" for name, value in job.env.items()), *options.env)
    merged = replace(options, image=found, **values)  # type: ignore[arg-type]  # each value is of its option's type
    said = [name for name in _ELSEWHERE if fields.get(name)]
    options.warnings += [f"{name} in {path} has no effect here: a server's runner measures it" for name in said]
    try:
        return merged.job()
    except InputError as error:
        # What is wrong stands in the file, where no flag was given.
        name = error.field.removeprefix("--").replace("-", "_").replace("iter", "iterations")
        if name in values and name in _FLAGS:
            raise InputError(f"{path}: {_FLAGS[name]}", error.value, error.why, hint=error.hint) from None
        raise


def _values(job: JobFile) -> dict[str, str | bool | Sequence[str] | None]:
    machine = job.machine
    return {
        "sandbox": None if machine.sandbox is None else machine.sandbox.value,
        # Exactly, and never with an exponent.
        "timeout": None if job.timeout is None else f"{job.timeout:.9f}".rstrip("0").rstrip("."),
        "iterations": None if job.iterations is None else str(job.iterations),
        "allow_failure": job.allow_failure,
        # No words at all are written as one empty word in flags.
        "entrypoint": None if job.entrypoint is None else job.entrypoint or ("",),
        "cmd": job.command,
        "user": job.user,
        "workdir": job.workdir,
        "network": machine.network or None,
        "output": job.outputs,
        "vcpus": None if machine.vcpus is None else str(machine.vcpus),
        "memory": machine.memory,
        "disk": machine.disk,
        "cpus": machine.cpus,
        "rootfs": None if machine.rootfs is None else machine.rootfs.value,
        "platform": machine.platform,
    }
