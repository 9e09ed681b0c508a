"""A job file as the body of ``POST /v0/run``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from metalmark.model import InputError

if TYPE_CHECKING:
    from metalmark.client.answer import JsonValue
    from metalmark.model import JobFile

_HERE = re.compile(r"(?:oci|oci-archive|docker-archive):.*|[./~].*", re.DOTALL)
_ONE_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


def run_body(job: JobFile, *, context: Mapping[str, str], now: datetime, idempotency_key: UUID) -> dict[str, JsonValue]:
    """Return the body of a run that a server's runner is to do.

    Args:
        job: What is to be run.
        context: Where it is submitted from, as `read_run_context` has it.
        now: The time of day.
        idempotency_key: Under which the run can be sent again without being done twice.

    Raises:
        InputError: The job has no image, or asks for what a server's job cannot have.
    """
    if job.image is None:
        raise InputError(
            "image", None, "a server's runner needs one", hint="name it with --image, or as image in the job file"
        )
    if _HERE.fullmatch(job.image):
        hint = "push it to a registry that the server takes images of, or run it here: metalmark runner run"
        raise InputError("image", job.image, "it is on this machine, where no runner can fetch it", hint=hint)
    for name, value in (("user", job.user), ("workdir", job.workdir)):
        if value is not None:
            raise InputError(name, value, "a server's jobs take the image's own", hint=f"set the {name} in the image")
    moment = now.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"
    thresholds = job.thresholds.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return _given(
        {
            "project": job.project,
            "idempotency_key": str(idempotency_key),
            "branch": job.branch,
            "hash": job.hash,
            "start_point": _start_point(job),
            "testbed": job.testbed,
            "thresholds": thresholds or None,
            "start_time": moment,
            "end_time": moment,
            "results": [],
            "settings": job.results.model_dump(mode="json", exclude_none=True) or None,
            "context": dict(context),
            "job": _job(job),
        }
    )


def names_a_project(image: str) -> bool:
    """Whether a server takes the project from an image's name: one word, in the server's own registry."""
    name = image.partition("@")[0]
    head, slash, rest = name.rpartition("/")
    if slash and not ("." in head or ":" in head or head == "localhost"):
        return False
    return _ONE_NAME.fullmatch(rest.partition(":")[0]) is not None and "/" not in head


def _job(job: JobFile) -> dict[str, JsonValue]:
    return _given(
        {
            "image": job.image,
            "spec": job.spec,
            "entrypoint": None if job.entrypoint is None else list(job.entrypoint),
            "cmd": None if job.command is None else list(job.command),
            "env": dict(job.env) or None,
            # Whole seconds; less than was asked for would end what was meant to be allowed.
            "timeout": None if job.timeout is None else math.ceil(job.timeout),
            "file_paths": None if job.outputs is None else list(job.outputs),
            "build_time": job.build_time or None,
            "file_size": job.file_size or None,
            "iter": job.iterations,
            "allow_failure": job.allow_failure or None,
            "backdate": None if job.backdate is None else job.backdate.astimezone(UTC).isoformat(),
            "priority": job.priority,
            "retry": job.retry,
        }
    )


def _start_point(job: JobFile) -> dict[str, JsonValue] | None:
    if job.start_point is None:
        return None
    return job.start_point.model_dump(mode="json", exclude_none=True) or None


def _given(fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in fields.items() if value is not None}
