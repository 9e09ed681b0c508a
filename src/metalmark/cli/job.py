"""``metalmark job``: what runners were asked to do, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from metalmark.cli.job_logs import JobLog
from metalmark.cli.key import Project
from metalmark.cli.ordered_output import ordered_output
from metalmark.cli.remote import Paging, group_of, remote_command, say
from metalmark.cli.view import View, column, columns, listing, single

if TYPE_CHECKING:
    from metalmark.client import JsonValue, ServerEvent, ServerSession

app = group_of("Follow, cancel and retry jobs.")

Job = Annotated[str, typer.Argument(metavar="JOB", help="UUID of the job.", show_default=False)]
_STATUS = Literal["pending", "claimed", "running", "completed", "processed", "failed", "canceled"]

_SPEC = column("spec.slug", "spec")
_ODD = {"spec": _SPEC, "pending": column("pending.text", "pending because")}
_PLACE = column("pending.position", "place in the queue")
_LIST = columns("uuid", "status", "phase", _SPEC, "priority", "created", "started", "completed")


@remote_command(app, "list", "ls", needs_credential=False, sort=("created",), answers="JobBody[]")
async def list_jobs(
    server: ServerSession,
    *,
    project: Project,
    status: Annotated[_STATUS | None, typer.Option(help="Only those.", show_default=False)] = None,
    paging: Paging,
) -> View:
    """List the jobs of a project, the newest first."""
    return listing(await paging.fetch(server, "projects", project, "jobs", query={"status": status}), _LIST)


@remote_command(app, "view", "get", needs_credential=False, answers="JobBody")
async def view_job(server: ServerSession, *, project: Project, job: Job) -> View:
    """Show a job; --json has what happened to it, and its output once it ran, for those who signed in."""
    return job_view((await server.call("GET", "projects", project, "jobs", job)).value)


@remote_command(app, "cancel", answers="JobBody")
async def cancel_job(server: ServerSession, *, project: Project, job: Job) -> View:
    """Cancel a job. One that runs is stopped by its runner."""
    return job_view((await server.call("POST", "projects", project, "jobs", job, "cancel")).value)


@remote_command(app, "retry", answers="JobBody")
async def retry_job(server: ServerSession, *, project: Project, job: Job) -> View:
    """Do a job that has ended once more, as a new job that points at it."""
    return job_view((await server.call("POST", "projects", project, "jobs", job, "retry")).value)


@remote_command(
    app,
    "logs",
    "log",
    needs_credential=False,
    epilog="Standard output and standard error of the job go where they went there. On a terminal, control characters "
    "are shown and not obeyed. --json prints one event a line.",
)
async def logs(
    server: ServerSession,
    *,
    project: Project,
    job: Job,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    as_json: bool,
) -> View:
    """Print what a job has printed, also while it runs."""
    with ordered_output() as output:
        log = JobLog(as_json=as_json, say=say)

        async def take(event: ServerEvent) -> bool:
            is_last = log.take(event)
            await output.room()
            return is_last

        query = {"follow": follow or None}
        await server.follow("projects", project, "jobs", job, "output", query=query, on_event=take)
        await output.written()
    return View(value=None)


def job_view(value: JsonValue) -> View:
    """Return the view of a job: its fields without output, and a line about each iteration that has ended."""
    if not isinstance(value, Mapping):
        return single(value)
    # A null of these says nothing: the job is not pending, has no fault, is no other's retry.
    silent = {
        "output",
        "config",
        "iterations",
        "events",
        *(name for name in ("pending", "error", "retry_of") if value.get(name) is None),
    }
    fields = [_ODD.get(name) or column(name) for name in value if name not in silent]
    if value.get("pending") is not None:
        fields.append(_PLACE)
    view = single(value, fields)
    found = value.get("output")
    output = found if isinstance(found, Mapping) else {}
    # Output may be too large for the answer, or not for us.
    results = output.get("results") or value.get("iterations")
    rows = list(view.rows)
    for number, result in enumerate(results if isinstance(results, Sequence) else (), 1):
        if isinstance(result, Mapping):
            files = result.get("output")
            some = f", {len(files)} files" if isinstance(files, Mapping) and files else ""
            rows.append((f"iteration {result.get('iteration', number)}", f"exit code {result.get('exit_code')}{some}"))
    # Most often it is the job's own, which has a row.
    if output.get("error") not in (None, value.get("error")):
        rows.append(("error", str(output["error"])))
    return View(value=value, rows=tuple(rows))
