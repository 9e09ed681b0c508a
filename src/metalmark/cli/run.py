"""``metalmark run``: a benchmark on one of a server's runners, from here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import typer

from metalmark.cli import run_flags as flags
from metalmark.cli.branch import StartHash, StartReset, StartThresholds, StartVersions
from metalmark.cli.dashed_command import AFTER_DASHES, DashedCommand
from metalmark.cli.errors import exit_status, tell
from metalmark.cli.record_flags import only_given
from metalmark.cli.remote import RemoteCommand, remote_command
from metalmark.cli.view import View, show, single
from metalmark.model import InputError, MetalmarkError

if TYPE_CHECKING:
    from typer._click.core import Context  # only for a signature; Typer has no public name for it

    from metalmark.client import JsonValue, ServerSession
    from metalmark.model import JobFile

app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)

_EPILOG = (
    "Exit code: the benchmark's own; 124 time-out, 125 a fault that is not the benchmark's, 126 not executable, 127 "
    "not found, 128+N ended by signal N or canceled, 2 wrong usage. Standard output carries the benchmark's, or with "
    "--json one object of report, job and exit_code (with --detach the report); all else goes to standard error. An "
    "interrupt on a terminal asks whether to cancel the job or to leave it alone; elsewhere it cancels the job, and a "
    "second one ends the command at once."
)


class RunCommand(DashedCommand, RemoteCommand):
    """Ends with codes that no benchmark's are mistaken for."""

    several = frozenset(("--entrypoint",))
    only_one = ("FILE.toml", "one is named already")

    def invoke(self, ctx: Context) -> object:
        """Do it; a failure is no benchmark's."""
        try:
            return super().invoke(ctx)
        except (MetalmarkError, KeyboardInterrupt) as error:
            tell(error)
            raise typer.Exit(exit_status(error, running=True)) from error


@remote_command(app, "run", needs_credential=False, epilog=_EPILOG, kind=RunCommand)
async def run(
    server: ServerSession,
    *,
    context: typer.Context,
    file: flags.File = None,
    image: flags.Image = None,
    spec: flags.Spec = None,
    entrypoint: flags.Entrypoint = None,
    env: flags.Env = None,
    iterations: flags.Iterations = None,
    job_timeout: flags.JobTimeout = None,
    allow_failure: flags.AllowFailure = False,
    output: flags.Output = None,
    file_size: flags.FileSize = None,
    build_time: flags.BuildTime = False,
    project: flags.ProjectFlag = None,
    branch: flags.Branch = None,
    commit: flags.Hash = None,
    start_point: flags.StartPoint = None,
    start_point_hash: StartHash = None,
    start_point_max_versions: StartVersions = None,
    start_point_clone_thresholds: StartThresholds = False,
    start_point_reset: StartReset = False,
    testbed: flags.Testbed = None,
    adapter: flags.Adapter = None,
    average: flags.Average = None,
    fold: flags.Fold = None,
    backdate: flags.Backdate = None,
    priority: flags.Priority = None,
    retry: flags.Retry = False,
    ci_on_the_fly: flags.OnTheFly = False,
    detach: flags.Detach = False,
    as_json: bool,
) -> View:
    """Run a benchmark on one of a server's runners, and watch it.

    The job comes from FILE.toml, from flags, or both. Words after -- replace the image's CMD.
    """
    if file is not None and not file.endswith(".toml"):
        hint = "a command in an image is named after --: metalmark run --image IMAGE -- COMMAND"
        raise InputError("FILE.toml", file, "a job file has a name that ends in .toml", hint=hint)
    if output and file_size:
        raise InputError("--file-size", file_size[0], "--output is given too", hint="give one of them")
    start = only_given(
        {
            "branch": start_point,
            "hash": start_point_hash,
            "max_versions": start_point_max_versions,
            "clone_thresholds": start_point_clone_thresholds or None,
            "reset": start_point_reset or None,
        }
    )
    fields: Mapping[str, object] = {
        "image": image,
        "command": context.meta[AFTER_DASHES] or None,
        "spec": spec,
        "entrypoint": None if not entrypoint else [] if entrypoint == [""] else entrypoint,
        "env": flags.variables(env),
        "iterations": iterations,
        "timeout": job_timeout,
        "allow_failure": allow_failure or None,
        "outputs": output or file_size or None,
        "file_size": bool(file_size) or None,
        "build_time": build_time or None,
        "project": project,
        "branch": branch,
        "hash": commit,
        "testbed": testbed,
        "backdate": None if backdate is None else flags.moment(backdate),
        "priority": priority,
        "retry": retry or None,
        "start_point": start or None,
        "results": only_given({"adapter": adapter, "average": average, "fold": fold}) or None,
    }
    job = flags.job_of(file=file, fields=fields, environment=os.environ)
    if detach:
        show(_named(await _submit(server, job, on_the_fly=ci_on_the_fly)), as_json=as_json)
        return View(value=None)
    from metalmark.cli.ordered_output import ordered_output
    from metalmark.cli.remote_run import watch

    with ordered_output() as ordered:
        report = await _submit(server, job, on_the_fly=ci_on_the_fly)
        allow = job.allow_failure or False
        code = await watch(server, report, output=ordered, allow_failure=allow, as_json=as_json)
    raise typer.Exit(code)


async def _submit(server: ServerSession, job: JobFile, *, on_the_fly: bool) -> Mapping[str, JsonValue]:
    import anyio

    from metalmark.cli.remote import warn
    from metalmark.client import CONTEXT_KEYS, names_a_project, read_run_context, run_body
    from metalmark.model import ProtocolError
    from metalmark.system import SystemClock

    if (
        job.project is None
        and not names_a_project(job.image or "")
        and os.environ.get("CI") == "true"
        and not on_the_fly
    ):
        raise InputError(
            "--project", None, "in CI a project is not made by accident", hint="name it, or add --ci-on-the-fly"
        )
    context = await read_run_context(Path.cwd(), os.environ, warn=warn)
    if (
        job.branch is None
        and f"{CONTEXT_KEYS}/branch/hash" in context
        and f"{CONTEXT_KEYS}/branch/ref/name" not in context
    ):
        warn("no branch is checked out here, so the results are those of main; name another with --branch")
    if job.machine.model_fields_set:
        warn("machine in the job file has no effect here: a server's spec says what a job gets")
    body = run_body(job, context=context, now=SystemClock().now(), idempotency_key=uuid4())
    # Under its idempotency key the run is done once, however often it is sent.
    try:
        answer = await server.call("POST", "run", body=body, repeatable=True)
    except anyio.get_cancelled_exc_class():
        warn("interrupted while the run was submitted, perhaps too late: see `metalmark job list`")
        raise
    report = answer.value
    if not isinstance(report, Mapping) or not isinstance(report.get("job"), str):
        raise ProtocolError(
            "the server's answer to the run names no job", hint="see whether --host names such a server"
        )
    return report


def _named(report: Mapping[str, JsonValue]) -> View:
    found = report.get("project")
    project = found.get("slug") if isinstance(found, Mapping) else None
    named = {"job": report.get("job"), "project": project, "report": report.get("uuid")}
    follow = f"follow it with: metalmark job logs --follow {project} {report.get('job')}"
    shown = single(named, notes=(follow,))
    return View(value=report, rows=shown.rows, notes=shown.notes)
