"""``metalmark report``: what was measured, run by run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from metalmark.cli.branch import StartBranch, StartHash, StartReset, StartThresholds, StartVersions, start_point
from metalmark.cli.key import Project
from metalmark.cli.record_flags import only_given
from metalmark.cli.remote import Paging, group_of, remote_command
from metalmark.cli.view import View, column, columns, done, listing, single
from metalmark.model import InputError

if TYPE_CHECKING:
    from metalmark.client import ServerSession

app = group_of("Look after reports: what runs measured.")

Report = Annotated[str, typer.Argument(metavar="REPORT", help="UUID of the report.", show_default=False)]
_LONGEST_RESULTS = 64 * 1024 * 1024
_Moment = {"metavar": "TIME", "show_default": False}

_SHOWN = (
    column("branch.name", "branch"),
    column("branch.head.version.number", "version"),
    column("branch.head.version.hash", "hash"),
    column("testbed.name", "testbed"),
)
_LIST = (*columns("start_time", "end_time"), *_SHOWN, *columns("job", "uuid"))
_FIELDS = (
    *columns("uuid", column("project.slug", "project"), column("user.slug", "user")),
    *_SHOWN,
    *columns("start_time", "end_time", "created", "adapter", "job"),
)


@remote_command(app, "list", "ls", needs_credential=False, sort=("date_time",), answers="ReportBody[]")
async def list_reports(
    server: ServerSession,
    *,
    project: Project,
    branch: Annotated[str | None, typer.Option(metavar="BRANCH", help="Only those on it: UUID, slug or name.")] = None,
    testbed: Annotated[
        str | None, typer.Option(metavar="TESTBED", help="Only those on it: UUID, slug or name.")
    ] = None,
    start_time: Annotated[str | None, typer.Option(**_Moment, help="Only those that start then or later.")] = None,
    end_time: Annotated[str | None, typer.Option(**_Moment, help="Only those that end then or earlier.")] = None,
    archived: Annotated[bool, typer.Option("--archived", help="Only those of archived branches and testbeds.")] = False,
    expand: Annotated[bool, typer.Option("--expand", help="With --json: results and alerts too.")] = False,
    paging: Paging,
) -> View:
    """List the reports of a project, the latest first."""
    query = {
        "branch": branch,
        "testbed": testbed,
        "start_time": milliseconds(start_time, field="--start-time"),
        "end_time": milliseconds(end_time, field="--end-time"),
        "archived": archived or None,
        "expand": expand or None,
    }
    return listing(await paging.fetch(server, "projects", project, "reports", query=query), _LIST)


@remote_command(app, "create", "add", answers="ReportBody")
async def create_report(
    server: ServerSession,
    *,
    project: Project,
    branch: Annotated[str, typer.Option(metavar="BRANCH", help="Its branch: UUID, slug or name.", show_default=False)],
    testbed: Annotated[str, typer.Option(metavar="TESTBED", help="Its testbed, likewise.", show_default=False)],
    start_time: Annotated[str, typer.Option(**_Moment, help="When the run began.")],
    end_time: Annotated[str, typer.Option(**_Moment, help="When it ended.")],
    results: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="What was printed; repeatable, once an iteration.", show_default=False),
    ] = None,
    results_file: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="The same from a file; repeatable, after --results.", show_default=False),
    ] = None,
    commit: Annotated[str | None, typer.Option("--hash", metavar="HASH", help="The commit that was measured.")] = None,
    start_point_branch: StartBranch = None,
    start_point_hash: StartHash = None,
    start_point_max_versions: StartVersions = None,
    start_point_clone_thresholds: StartThresholds = False,
    start_point_reset: StartReset = False,
    adapter: Annotated[str | None, typer.Option(metavar="NAME", help="Format of the results; magic guesses.")] = None,
    average: Annotated[Literal["mean", "median"] | None, typer.Option(help="What stands for a sample.")] = None,
    fold: Annotated[
        Literal["min", "max", "mean", "median"] | None, typer.Option(help="Make one result of all iterations.")
    ] = None,
) -> View:
    """Add a report of a run that was done elsewhere."""
    start = start_point(
        branch=start_point_branch,
        commit=start_point_hash,
        max_versions=start_point_max_versions,
        clone_thresholds=start_point_clone_thresholds,
        reset=start_point_reset,
    )
    body = only_given(
        {
            "branch": branch,
            "testbed": testbed,
            "start_time": moment(start_time, field="--start-time").isoformat(),
            "end_time": moment(end_time, field="--end-time").isoformat(),
            "results": [*(results or ()), *(_read(path) for path in results_file or ())],
            "hash": commit,
            "start_point": start,
            "settings": only_given({"adapter": adapter, "average": average, "fold": fold}) or None,
        }
    )
    return single((await server.call("POST", "projects", project, "reports", body=body)).value, _FIELDS)


@remote_command(app, "view", "get", needs_credential=False, answers="ReportBody")
async def view_report(server: ServerSession, *, project: Project, report: Report) -> View:
    """Show a report; --json has its results too."""
    return single((await server.call("GET", "projects", project, "reports", report)).value, _FIELDS)


@remote_command(app, "delete", "rm")
async def delete_report(server: ServerSession, *, project: Project, report: Report) -> View:
    """Delete a report with all that it measured."""
    await server.call("DELETE", "projects", project, "reports", report)
    return done(f"report {report} is deleted")


def milliseconds(text: str | None, *, field: str) -> int | None:
    """Return an instant as milliseconds since the epoch, as lists are filtered by it; None stays None.

    Raises:
        InputError: As `moment`.
    """
    return None if text is None else round(moment(text, field=field).timestamp() * 1000)


def moment(text: str, *, field: str) -> datetime:
    """Return an instant.

    Args:
        text: RFC 3339 with or without an offset (then UTC), or a whole number of seconds since the epoch.
        field: The flag, for the error.

    Raises:
        InputError: It is neither.
    """
    hint = "write 2026-01-31T10:00:00Z, 2026-01-31 or seconds since 1970"
    try:
        if text.isascii() and text.isdigit() and len(text) <= 11:
            return datetime.fromtimestamp(int(text), UTC)
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InputError(field, text, "this is no instant", hint=hint) from None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(_LONGEST_RESULTS + 1)
    except OSError as error:
        raise InputError("--results-file", str(path), error.strerror or "it cannot be read") from None
    if len(content) > _LONGEST_RESULTS:
        raise InputError("--results-file", str(path), f"it is longer than {_LONGEST_RESULTS} bytes")
    return content.decode("utf-8", errors="replace")
