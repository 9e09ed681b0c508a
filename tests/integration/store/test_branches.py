"""Branches, heads, versions and start points on both engines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import anyio
import pytest
from tests.integration.store.job_floor import Floor

from metalmark.model import BranchName, Conflict, GitHash, NotFound, Slug, new_id
from metalmark.store import (
    BranchChanges,
    BranchRecord,
    Connection,
    NewReportRecord,
    Page,
    StartRequest,
    Store,
    branch_for_run,
    create_branch,
    delete_branch,
    delete_report,
    find_branch,
    find_branch_at,
    find_report,
    insert_report,
    list_branches,
    needs_new_head,
    new_report_id,
    restart_branch,
    update_branch,
    version_for_report,
)
from metalmark.store.heads import find_head, find_start_point

pytestmark = pytest.mark.anyio
T = TypeVar("T")
NOW = datetime(2026, 1, 31, 9, 15, tzinfo=UTC)
MAIN, WORK = Slug("main"), BranchName("feature/x")
A, B, C = (GitHash(digit * 40) for digit in "abc")


class History:
    """A project, and runs on its branches."""

    def __init__(self, store: Store, floor: Floor) -> None:
        self.store = store
        self.floor = floor
        self.now = NOW

    async def branch(
        self, name: UUID | Slug | BranchName, start: StartRequest | None = None, *, project: UUID | None = None
    ) -> BranchRecord:
        self.now += timedelta(seconds=1)

        async def work(connection: Connection) -> BranchRecord:
            return await branch_for_run(
                connection, project_id=project or self.floor.project, identifier=name, start=start, now=self.now
            )

        return await self.store.write(work)

    async def report(self, branch: BranchRecord, commit: GitHash | None = None) -> tuple[UUID, int]:
        """Submit a report on the branch's head; return it and the number of its version."""

        async def work(connection: Connection) -> tuple[UUID, int]:
            version = await version_for_report(
                connection, project_id=self.floor.project, head_id=branch.head.id, hash=commit
            )
            new = NewReportRecord(
                id=new_report_id(),
                project_id=self.floor.project,
                user_id=None,
                idempotency_key=None,
                head_id=branch.head.id,
                version_id=version.id,
                testbed_id=self.floor.testbed,
                spec_id=None,
                adapter="json",
                settings={},
                start_time=NOW,
                end_time=NOW,
                results_key=None,
            )
            await insert_report(connection, new, now=NOW)
            return new.id, version.number

        return await self.store.write(work)

    async def versions(self, branch: BranchRecord) -> list[tuple[int, str | None]]:
        """The versions of the branch's head, by number."""
        from sqlalchemy import select

        from metalmark.store.tables import head_versions, versions

        async with self.store.read() as connection:
            rows = await connection.execute(
                select(versions.c.number, versions.c.hash)
                .join(head_versions, head_versions.c.version_id == versions.c.id)
                .where(head_versions.c.head_id == branch.head.id)
                .order_by(versions.c.number)
            )
            return [(row.number, row.hash) for row in rows]


@pytest.fixture
async def history(store: Store) -> History:
    floor = Floor(store=store, now=NOW)
    await floor.lay()
    return History(store, floor)


def start(branch: str | None = None, commit: GitHash | None = None, **more: Any) -> StartRequest:
    return StartRequest(branch=None if branch is None else Slug(branch), hash=commit, **more)


async def test_versions_count_up_along_a_head_and_a_commit_keeps_its_own(history: History) -> None:
    branch = await history.branch(WORK)
    numbers = [(await history.report(branch, commit))[1] for commit in (None, A, None, A, B, A, None)]
    assert numbers == [0, 1, 2, 1, 3, 1, 4]
    # The case of a commit's digits is kept, and counts.
    assert (await history.report(branch, GitHash("A" * 40)))[1] == 5


async def test_a_branch_is_made_under_the_name_or_slug_that_a_run_gives(history: History) -> None:
    by_name = await history.branch(WORK)
    assert (by_name.name, by_name.slug) == ("feature/x", "feature-x")
    assert (await history.branch(Slug("feature-x"))).id == by_name.id
    by_slug = await history.branch(Slug("next"))
    assert (by_slug.name, by_slug.slug) == ("next", "next")
    with pytest.raises(NotFound):
        await history.branch(new_id())
    assert (await history.branch(by_slug.id)).id == by_slug.id
    other = await history.branch(BranchName("feature_x"))
    assert other.slug.startswith("feature-x-")


async def test_a_name_that_looks_like_a_slug_finds_a_branch_whose_slug_was_taken(history: History) -> None:
    await history.branch(BranchName("a/b"))

    async def work(connection: Connection) -> BranchRecord:
        return await create_branch(connection, project_id=history.floor.project, name=BranchName("a-b"), now=NOW)

    made = await history.store.write(work)
    assert made.slug != "a-b"
    async with history.store.read() as connection:
        found = await find_branch(connection, project_id=history.floor.project, identifier=BranchName("a-b"))
    assert found is not None
    assert found.id == made.id
    # The slug comes first.
    assert (await history.branch(Slug("a-b"))).name == "a/b"


async def test_a_run_takes_a_branch_out_of_the_archive(history: History) -> None:
    branch = await history.branch(WORK)

    async def archive(connection: Connection) -> BranchRecord | None:
        return await update_branch(
            connection, branch_id=branch.id, changes=BranchChanges(archived=True), now=history.now
        )

    archived = await history.store.write(archive)
    assert archived is not None
    assert archived.archived == history.now
    async with history.store.read() as connection:
        shown, total = await list_branches(
            connection, page=Page(limit=10), project_id=history.floor.project, archived=True
        )
        assert ([one.id for one in shown], total) == ([branch.id], 1)
    assert (await history.branch(WORK)).archived is None


async def test_a_branch_starts_with_the_versions_of_another(history: History) -> None:
    main = await history.branch(MAIN)
    for commit in (A, B, C):
        await history.report(main, commit)
    work = await history.branch(WORK, start("main", B))
    assert await history.versions(work) == [(0, A), (1, B)]
    point = work.head.start_point
    assert point is not None
    assert (point.branch_id, point.head_id, point.version.number) == (main.id, main.head.id, 1)
    # Shared versions are not matched by commit: no report on this head has them.
    assert (await history.report(work, A))[1] == 2
    # The source goes on without it.
    await history.report(main)
    assert [number for number, _ in await history.versions(work)] == [0, 1, 2]
    assert [number for number, _ in await history.versions(main)] == [0, 1, 2, 3]


@pytest.mark.parametrize(("most", "numbers"), [(0, []), (1, [2]), (2, [1, 2]), (2**32 - 1, [0, 1, 2])])
async def test_the_latest_versions_are_taken_over_up_to_a_number(
    history: History, most: int, numbers: list[int]
) -> None:
    main = await history.branch(MAIN)
    for _ in range(3):
        await history.report(main)
    work = await history.branch(WORK, start("main", max_versions=most))
    assert [number for number, _ in await history.versions(work)] == numbers
    assert (await history.report(work))[1] == (numbers[-1] + 1 if numbers else 0)


async def test_a_start_point_that_is_not_there_is_none(history: History) -> None:
    empty = await history.branch(MAIN)
    for request in (start("nowhere"), start(), start("main"), StartRequest(branch=new_id())):
        made = await history.branch(BranchName(f"b/{id(request)}"), request)
        assert made.head.start_point is None
    await history.report(empty, A)
    unknown = await history.branch(WORK, start("main", C))
    assert unknown.head.start_point is not None
    assert unknown.head.start_point.version.hash == A


async def test_when_a_branch_begins_anew(history: History) -> None:
    main, other = await history.branch(MAIN), await history.branch(Slug("other"))
    await history.report(main, A)
    await history.report(other, A)
    first = await history.branch(WORK)
    assert (await history.branch(WORK, start())).head == first.head
    second = await history.branch(WORK, start("main"))
    assert second.head.id != first.head.id
    assert (await history.branch(WORK, start("main"))).head == second.head
    await history.report(main, B)
    # It named no commit, and the branch moved on to another.
    third = await history.branch(WORK, start("main"))
    assert third.head.id != second.head.id
    assert (await history.branch(WORK, start("main", B))).head == third.head
    await history.report(main)
    # The latest version has no commit to tell by.
    assert (await history.branch(WORK, start("main"))).head == third.head
    fourth = await history.branch(WORK, start("other"))
    assert fourth.head.id != third.head.id
    fifth = await history.branch(WORK, start(reset=True))
    assert fifth.head.start_point is None
    assert await history.versions(fifth) == []
    async with history.store.read() as connection:
        replaced = await find_head(connection, branch_id=first.id, head_id=first.head.id)
        assert replaced is not None
        assert replaced.replaced is not None
        current = await find_head(connection, branch_id=first.id)
        assert current is not None
        assert (current.id, current.replaced) == (fifth.head.id, None)
        old = await find_branch_at(connection, project_id=first.project_id, identifier=first.id, head_id=second.head.id)
        assert old is not None
        assert old.head.start_point == second.head.start_point
        assert (
            await find_branch_at(connection, project_id=first.project_id, identifier=first.id, head_id=main.head.id)
            is None
        )


async def test_a_branch_may_start_from_itself(history: History) -> None:
    branch = await history.branch(WORK)
    for commit in (A, B):
        await history.report(branch, commit)
    again = await history.branch(WORK, StartRequest(branch=WORK, hash=A, reset=True))
    assert again.head.id != branch.head.id
    assert await history.versions(again) == [(0, A)]


async def test_names_and_slugs_are_taken_once_in_a_project(history: History) -> None:
    await history.branch(WORK)
    other = await history.branch(MAIN)

    async def again(connection: Connection) -> BranchRecord:
        return await create_branch(connection, project_id=history.floor.project, name=WORK, now=NOW)

    with pytest.raises(Conflict):
        await history.store.write(again)
    for changes in (BranchChanges(name=WORK), BranchChanges(slug=Slug("feature-x"))):

        async def change(connection: Connection, changes: BranchChanges = changes) -> BranchRecord | None:
            return await update_branch(connection, branch_id=other.id, changes=changes, now=NOW)

        with pytest.raises(Conflict):
            await history.store.write(change)


async def test_a_branch_with_reports_is_kept(history: History) -> None:
    branch = await history.branch(WORK)
    report, _ = await history.report(branch)
    # Reports on a head that was replaced count too.
    await history.branch(WORK, start(reset=True))

    async def drop(connection: Connection) -> bool:
        return await delete_branch(connection, branch_id=branch.id)

    with pytest.raises(Conflict):
        await history.store.write(drop)

    async def forget(connection: Connection) -> object:
        return await delete_report(connection, project_id=history.floor.project, report_id=report)

    assert await history.store.write(forget) == ()
    assert await history.store.write(drop)
    assert not await history.store.write(drop)


async def test_a_branch_that_others_started_from_can_go(history: History) -> None:
    main = await history.branch(MAIN)
    report, _ = await history.report(main, A)
    work = await history.branch(WORK, start("main"))

    async def forget(connection: Connection) -> None:
        # The version is on the other head too; nothing but the report keeps it.
        assert await delete_report(connection, project_id=main.project_id, report_id=report) == ()
        assert await delete_branch(connection, branch_id=main.id)

    await history.store.write(forget)
    async with history.store.read() as connection:
        left = await find_branch(connection, project_id=work.project_id, identifier=work.id)
    assert left is not None
    assert left.head.start_point is None


async def test_a_version_without_reports_goes_and_the_gap_closes_on_every_head(history: History) -> None:
    main = await history.branch(MAIN)
    reports = [(await history.report(main, commit))[0] for commit in (A, B, C)]
    twin, _ = await history.report(main, B)
    work = await history.branch(WORK, start("main"))
    await history.report(work)

    async def forget(report: UUID) -> None:
        async def work(connection: Connection) -> None:
            assert await delete_report(connection, project_id=history.floor.project, report_id=report) == ()

        await history.store.write(work)

    await forget(reports[1])
    assert await history.versions(main) == [(0, A), (1, B), (2, C)]
    await forget(twin)
    assert await history.versions(main) == [(0, A), (1, C)]
    assert await history.versions(work) == [(0, A), (1, C), (2, None)]
    assert (await history.report(main))[1] == 2
    async with history.store.read() as connection:
        assert await find_report(connection, twin, project_id=history.floor.project) is None
        assert await find_report(connection, reports[0], project_id=new_id()) is None


async def test_runs_at_once_make_one_branch_and_no_number_twice(history: History) -> None:
    numbers: list[int] = []

    async def run() -> None:
        async def work(connection: Connection) -> int:
            branch = await branch_for_run(
                connection, project_id=history.floor.project, identifier=WORK, start=None, now=NOW
            )
            version = await version_for_report(
                connection, project_id=history.floor.project, head_id=branch.head.id, hash=None
            )
            return version.number

        numbers.append(await history.store.write(work))

    async with anyio.create_task_group() as group:
        for _ in range(32):
            group.start_soon(run)
    assert sorted(numbers) == list(range(32))


async def test_the_decision_needs_no_branch_at_all(history: History) -> None:
    main = await history.branch(MAIN)
    await history.report(main, A)
    async with history.store.read() as connection:
        point = await find_start_point(connection, branch_id=main.id)
    assert point is not None
    assert [needs_new_head(cur, new, reset=False) for cur in (None, point) for new in (None, point)] == [
        False,
        True,
        False,
        False,
    ]
    assert needs_new_head(point, None, reset=True)


async def test_a_restart_without_a_request_changes_nothing(history: History) -> None:
    branch = await history.branch(WORK)

    async def work(connection: Connection) -> BranchRecord:
        return await restart_branch(connection, branch, None, now=NOW)

    assert await history.store.write(work) == branch
