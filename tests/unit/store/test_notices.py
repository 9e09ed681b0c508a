"""Who gets which notice, and what becomes of one who does not read."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import new_id
from metalmark.store import MISSED, Notice, NoticeKind, Notices

pytestmark = pytest.mark.anyio
JOB = new_id()
OTHER = new_id()
CHANGED = Notice(kind=NoticeKind.JOB_CHANGED, subject=JOB)


@given(st.builds(Notice, kind=st.sampled_from(NoticeKind), subject=st.none() | st.uuids()))
def test_a_notice_is_read_as_it_was_written(notice: Notice) -> None:
    assert Notice.parse(notice.text()) == notice


@given(st.text())
def test_foreign_text_is_no_notice_and_no_error(text: str) -> None:
    notice = Notice.parse(text)
    assert notice is None or notice.text() == text or notice.subject is not None


async def test_notices_go_to_those_who_subscribed_to_kind_and_subject() -> None:
    notices = Notices()
    with (
        notices.subscribe([NoticeKind.JOB_CHANGED]) as any_job,
        notices.subscribe([NoticeKind.JOB_CHANGED], subject=JOB) as this_job,
        notices.subscribe([NoticeKind.JOB_CHANGED], subject=OTHER) as other_job,
        notices.subscribe([NoticeKind.JOB_OUTPUT]) as output,
    ):
        notices.deliver([CHANGED])
        assert any_job.take_waiting() == [CHANGED]
        assert this_job.take_waiting() == [CHANGED]
        assert other_job.take_waiting() == []
        assert output.take_waiting() == []


async def test_one_who_subscribed_twice_over_gets_a_notice_once() -> None:
    notices = Notices()
    with notices.subscribe([NoticeKind.JOB_CHANGED, NoticeKind.JOB_CHANGED]) as twice:
        notices.deliver([CHANGED])
        assert twice.take_waiting() == [CHANGED]


async def test_everybody_hears_that_something_was_missed() -> None:
    notices = Notices()
    with notices.subscribe([NoticeKind.JOB_OUTPUT], subject=OTHER) as subscription:
        notices.deliver([MISSED])
        assert subscription.take_waiting() == [MISSED]


async def test_a_slow_reader_is_told_once_that_it_missed_something_and_then_goes_on() -> None:
    notices = Notices()
    with notices.subscribe([NoticeKind.JOB_CHANGED]) as slow:
        notices.deliver([CHANGED] * 5_000)
        waiting = slow.take_waiting()
        assert waiting[-1] == MISSED
        assert waiting.count(MISSED) == 1
        assert len(waiting) < 2_000
        notices.deliver([CHANGED])
        assert slow.take_waiting() == [CHANGED]


async def test_a_subscription_ends_with_the_store_after_what_had_come() -> None:
    notices = Notices()
    with notices.subscribe([NoticeKind.JOB_CHANGED]) as before:
        notices.deliver([CHANGED])
        notices.end()
        assert [notice async for notice in before] == [CHANGED]
    with notices.subscribe([NoticeKind.JOB_CHANGED]) as after:
        assert [notice async for notice in after] == []


async def test_nothing_stays_of_a_subscription_that_is_over() -> None:
    notices = Notices()
    with notices.subscribe([NoticeKind.JOB_CHANGED], subject=JOB):
        pass
    notices.deliver([CHANGED])
    assert not notices._subscribers
    assert not notices._all


async def test_a_waiting_reader_wakes_up() -> None:
    notices = Notices()
    with notices.subscribe([NoticeKind.JOB_CHANGED]) as subscription, anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.lowlevel.checkpoint)
            tasks.start_soon(_deliver, notices)
            assert await anext(subscription) == CHANGED


async def _deliver(notices: Notices) -> None:
    await anyio.lowlevel.checkpoint()
    notices.deliver([CHANGED])
