"""``metalmark report``: what was measured, run by run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from metalmark.cli.key import Project
from metalmark.cli.remote import Paging, group_of, remote_command
from metalmark.cli.view import View, column, columns, done, listing, single
from metalmark.model import InputError

if TYPE_CHECKING:
    from metalmark.client import ServerSession

app = group_of("Read reports: what runs measured.")

Report = Annotated[str, typer.Argument(metavar="REPORT", help="UUID of the report.", show_default=False)]
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

    Args:
        text: RFC 3339 with or without an offset (then UTC), or a whole number of seconds since the epoch.
        field: The flag, for the error.

    Raises:
        InputError: It is neither.
    """
    if text is None:
        return None
    hint = "write 2026-01-31T10:00:00Z, 2026-01-31 or seconds since 1970"
    if text.isascii() and text.isdigit():
        if len(text) > 12:
            raise InputError(field, text, "this is no instant", hint=hint)
        return int(text) * 1000
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(field, text, "this is no instant", hint=hint) from None
    aware = found if found.tzinfo else found.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)
