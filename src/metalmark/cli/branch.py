"""``metalmark branch``: the lines of development of a project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from metalmark.cli.key import Project
from metalmark.cli.record_flags import (
    Archive,
    NewName,
    NewSlug,
    OnlyArchived,
    OnlyName,
    Search,
    Slug,
    Unarchive,
    archived_of,
    changes,
    only_given,
)
from metalmark.cli.remote import Paging, group_of, remote_command
from metalmark.cli.view import View, column, columns, done, listing, single
from metalmark.model import InputError

if TYPE_CHECKING:
    from metalmark.client import JsonValue, ServerSession

app = group_of("Look after branches: lines of development, and where each began.")

Branch = Annotated[str, typer.Argument(metavar="BRANCH", help="Slug or UUID of the branch.", show_default=False)]
StartBranch = Annotated[
    str | None, typer.Option("--start-point-branch", metavar="BRANCH", help="Where it begins: UUID, slug or name.")
]
StartHash = Annotated[
    str | None, typer.Option("--start-point-hash", metavar="HASH", help="At this commit; without it at the latest.")
]
StartVersions = Annotated[
    int | None,
    typer.Option(
        "--start-point-max-versions", metavar="N", min=0, max=2**32 - 1, help="Versions to take over; usually 255."
    ),
]
StartThresholds = Annotated[bool, typer.Option("--start-point-clone-thresholds", help="Take over the thresholds too.")]
StartReset = Annotated[
    bool, typer.Option("--start-point-reset", help="Begin a new head; without a start point an empty one.")
]

_LIST = columns("slug", "name", column("head.uuid", "head"), "archived", "created", "uuid")
_FIELDS = columns(
    "uuid", "project", "name", "slug", column("head.uuid", "head"), column("head.version.number", "version"),
    column("head.version.hash", "hash"), column("head.start_point.branch", "start point"),
    column("head.start_point.version.hash", "start point hash"), "created", "modified", "archived",
)  # fmt: skip


@remote_command(app, "list", "ls", needs_credential=False, sort=("name",), answers="BranchBody[]")
async def list_branches(
    server: ServerSession,
    *,
    project: Project,
    name: OnlyName = None,
    search: Search = None,
    archived: OnlyArchived = False,
    paging: Paging,
) -> View:
    """List the branches of a project."""
    query = {"name": name, "search": search, "archived": archived or None}
    return listing(await paging.fetch(server, "projects", project, "branches", query=query), _LIST)


@remote_command(app, "create", "add", answers="BranchBody")
async def create_branch(
    server: ServerSession,
    *,
    project: Project,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Its name, as git would take it, 1 to 256 bytes.", show_default=False)
    ],
    slug: Slug = None,
    start_point_branch: StartBranch = None,
    start_point_hash: StartHash = None,
    start_point_max_versions: StartVersions = None,
    start_point_clone_thresholds: StartThresholds = False,
) -> View:
    """Make a branch, empty or with the history of another."""
    start = start_point(
        branch=start_point_branch,
        commit=start_point_hash,
        max_versions=start_point_max_versions,
        clone_thresholds=start_point_clone_thresholds,
    )
    body = only_given({"name": name, "slug": slug, "start_point": start})
    return single((await server.call("POST", "projects", project, "branches", body=body)).value, _FIELDS)


@remote_command(app, "view", "get", needs_credential=False, answers="BranchBody")
async def view_branch(
    server: ServerSession,
    *,
    project: Project,
    branch: Branch,
    head: Annotated[str | None, typer.Option(metavar="UUID", help="An earlier head of the branch.")] = None,
) -> View:
    """Show a branch and its head."""
    answer = await server.call("GET", "projects", project, "branches", branch, query={"head": head})
    return single(answer.value, _FIELDS)


@remote_command(app, "update", "edit", answers="BranchBody")
async def update_branch(
    server: ServerSession,
    *,
    project: Project,
    branch: Branch,
    name: NewName = None,
    slug: NewSlug = None,
    start_point_branch: StartBranch = None,
    start_point_hash: StartHash = None,
    start_point_max_versions: StartVersions = None,
    start_point_clone_thresholds: StartThresholds = False,
    start_point_reset: StartReset = False,
    archive: Archive = False,
    unarchive: Unarchive = False,
) -> View:
    """Rename a branch, begin it anew, or archive it."""
    start = start_point(
        branch=start_point_branch,
        commit=start_point_hash,
        max_versions=start_point_max_versions,
        clone_thresholds=start_point_clone_thresholds,
        reset=start_point_reset,
    )
    body = changes({"name": name, "slug": slug, "start_point": start, "archived": archived_of(archive, unarchive)})
    return single((await server.call("PATCH", "projects", project, "branches", branch, body=body)).value, _FIELDS)


@remote_command(app, "delete", "rm")
async def delete_branch(server: ServerSession, *, project: Project, branch: Branch) -> View:
    """Delete a branch that no report refers to."""
    await server.call("DELETE", "projects", project, "branches", branch)
    return done(f"branch {branch} is deleted")


def start_point(
    *, branch: str | None, commit: str | None, max_versions: int | None, clone_thresholds: bool, reset: bool = False
) -> JsonValue:
    """Return the start point that flags describe; None when there is none.

    Raises:
        InputError: Something is said of a start point that is not named.
    """
    if branch is None:
        for flag, given in (
            ("--start-point-hash", commit is not None),
            ("--start-point-max-versions", max_versions is not None),
            ("--start-point-clone-thresholds", clone_thresholds),
        ):
            if given:
                raise InputError(flag, "given", "no start point is named", hint="name it with --start-point-branch")
        return {"reset": True} if reset else None
    return only_given(
        {
            "branch": branch,
            "hash": commit,
            "max_versions": max_versions,
            "clone_thresholds": clone_thresholds or None,
            "reset": reset or None,
        }
    )
