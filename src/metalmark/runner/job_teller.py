"""What one connection to a server of ours says of one job, until all of it is taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import structlog

from metalmark.model import MetalmarkError, Phase
from metalmark.runner.end_file import SpooledEnd
from metalmark.runner.end_message import own_end
from metalmark.runner.job_in_hand import JobInHand
from metalmark.runner.jobs_in_hand import JobsInHand
from metalmark.runner.session_pace import SessionPace
from metalmark.system import in_thread
from metalmark.wire import Began, Body, LiveOutput, PhaseTold, RefusalReason, Refused, Taken

_GONE = frozenset((RefusalReason.STALE_LEASE, RefusalReason.OVER))
_log = structlog.get_logger(__name__)

Answered = Callable[[Taken | Refused], Awaitable[None]]
Upload = Callable[[SpooledEnd], Awaitable[None]]
"""Uploads the document of an end. Raises `UploadRejected`, or a `MetalmarkError` when it may work later."""


class UploadRejected(Exception):
    """An upload that no further try can bring to its end.

    Args:
        reason: Why, in words; empty when the lease is over, so that nobody wants the output.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Asking(Protocol):
    """The connection, as far as one job needs it."""

    async def ask(self, message: Callable[[int], Body], answered: Answered, *, limit_s: float) -> None:
        """Send a message, made with its number; its answer is handed over within the limit, or the connection ends."""

    def look_again(self) -> None:
        """Call `JobTeller.tell` again."""

    async def pause(self, seconds: float) -> None:
        """Wait."""

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something beside the telling."""


class JobTeller:
    """Tells of one job over one connection. Nothing here outlives the connection but what the job itself knows.

    Args:
        job: The job.
        jobs: All jobs in hand.
        asking: The connection.
        upload: Uploads an end's document.
        inline_max: Size of a document above which it is uploaded.
        pace: Times.
    """

    def __init__(
        self,
        job: JobInHand,
        *,
        jobs: JobsInHand,
        asking: Asking,
        upload: Upload,
        inline_max: int,
        pace: SessionPace,
    ) -> None:
        self.job = job
        """Whom it tells of."""
        self._jobs = jobs
        self._asking = asking
        self._upload = upload
        self._inline_max = inline_max
        self._pace = pace
        self._phase: tuple[Phase, int] | None = None
        self._due: tuple[Phase, int, int] | None = None
        self._lasting: tuple[Phase, int] | None = None
        self._timing = False
        self._began = False
        self._offset = 0
        self._sent_offset = 0
        self._sending_output = False
        self._draining = False
        self._drained = False
        self._telling_end = False
        self._uploading = False
        self._uploaded = False
        self._without_results = ""
        self._pausing = False

    async def tell(self) -> None:
        """Say what was not said yet, as far as it can be said now.

        Raises:
            ChannelLost: The connection is over.
        """
        if self._pausing:
            return
        job = self.job
        if job.began and not self._began:
            await self._tell_began()
        await self._tell_phases()
        await self._tell_output()
        await self._tell_phases()
        if job.end is not None:
            await self._tell_end(job.end)

    async def _tell_phases(self) -> None:
        """Say which phase the job is in, after what was printed before: whoever follows sees what belongs to what."""
        job = self.job
        while job.end is None:
            if self._due is None and job.phase not in (None, self._phase) and self._counts(job.phase):
                self._due = (*job.phase, job.phase_offset)
            # Phases that are over by the time that their turn comes are passed over but for the one that was due: were
            # it always the latest, a job that prints all the time would be in none.
            if self._due is None or max(self._sent_offset, job.output.start_offset) < self._due[2]:
                return
            phase, iteration, _ = self._due
            self._phase, self._due = (phase, iteration), None
            await self._tell_phase(phase, iteration)

    def _counts(self, phase: tuple[Phase, int]) -> bool:
        """Whether a phase is to be told. What passes in no time costs a server more than it is worth to who looks."""
        if phase[0] is Phase.EXEC or phase == self._lasting:
            return True
        if not self._timing:
            self._timing = True
            self._asking.start(partial(self._time, phase))
        return False

    async def _time(self, phase: tuple[Phase, int]) -> None:
        await self._asking.pause(self._pace.phase_s)
        self._timing, self._lasting = False, phase
        self._asking.look_again()

    async def _tell_phase(self, phase: Phase, iteration: int) -> None:
        async def answered(answer: Taken | Refused) -> None:
            if self._refused(answer):
                self._phase = None

        def message(number: int) -> Body:
            return PhaseTold(id=number, job=self.job.job, lease=self.job.lease, phase=phase, iteration=iteration)

        await self._asking.ask(message, answered, limit_s=self._pace.answer_s)

    async def _tell_began(self) -> None:
        self._began = True
        phase, iteration = self.job.phase or (None, 0)
        if phase is Phase.EXEC:
            # One message for both.
            self._phase = self.job.phase
        else:
            iteration = 0

        async def answered(answer: Taken | Refused) -> None:
            if self._refused(answer):
                self._began = False

        await self._asking.ask(
            lambda number: Began(id=number, job=self.job.job, lease=self.job.lease, iteration=iteration),
            answered,
            limit_s=self._pace.answer_s,
        )

    async def _tell_output(self) -> None:
        # One message at a time: what is printed meanwhile goes into the next, so that a slow network gets larger ones.
        section = None if self._sending_output else self.job.output.read(self._offset)
        if section is None:
            return
        end = section.offset + section.size_bytes
        self._sending_output = True
        self._sent_offset = end

        async def answered(answer: Taken | Refused) -> None:
            self._sending_output = False
            if isinstance(answer, Refused) and answer.reason is RefusalReason.TOO_MUCH_OUTPUT:
                self.job.output.close()
            elif self._refused(answer):
                self._sent_offset = self._offset
            else:
                self._offset = end
                self.job.output.forget(end)

        await self._asking.ask(
            lambda number: LiveOutput(
                id=number, job=self.job.job, lease=self.job.lease, offset=section.offset, chunks=section.chunks
            ),
            answered,
            limit_s=self._pace.answer_s,
        )

    async def _tell_end(self, end: SpooledEnd) -> None:
        large = end.size_bytes > self._inline_max and not self._without_results
        if large and not self._uploaded:
            if not self._uploading:
                self._uploading = True
                self._asking.start(lambda: self._bring(end))
            return
        if self._telling_end or self._waits_for_output():
            return
        self._telling_end = True
        message = await in_thread(self._message_of, end, large)

        async def answered(answer: Taken | Refused) -> None:
            # In this order: the job is in hand until its end is off the disk, and is not told meanwhile.
            await self._end_answered(answer)
            self._telling_end = False

        # The number of a message is known only now.
        await self._asking.ask(
            lambda number: message.model_copy(update={"id": number}), answered, limit_s=self._pace.end_answer_s
        )

    def _message_of(self, end: SpooledEnd, large: bool) -> Body:  # noqa: FBT001  # called through a thread
        return own_end(end, message_id=0, uploaded=large, without_results=self._without_results)

    def _waits_for_output(self) -> bool:
        """Whether live output is still to be taken: after the end nobody takes it."""
        output = self.job.output
        is_empty = max(self._offset, output.start_offset) >= output.end_offset
        if self._drained or (is_empty and not self._sending_output):
            return False
        if not self._draining:
            self._draining = True
            self._asking.start(self._drain)
        return True

    async def _drain(self) -> None:
        await self._asking.pause(self._pace.drain_s)
        self._drained = True
        self._asking.look_again()

    async def _end_answered(self, answer: Taken | Refused) -> None:
        job, lease = self.job.job, self.job.lease
        if isinstance(answer, Taken) or answer.reason in _GONE:
            if isinstance(answer, Refused):
                _log.warning("result not wanted", job=str(job), lease=lease, reason=str(answer.reason))
            await self._jobs.acknowledged(job, lease)
        elif answer.reason is RefusalReason.NOT_UPLOADED:
            self._uploaded = False
            self._wait(self._pace.again_s)
        elif answer.reason is RefusalReason.BUSY:
            self._wait(self._pace.again_s)
        elif self._without_results:
            _log.error("result refused for good", job=str(job), lease=lease, message=answer.message)
            await self._jobs.acknowledged(job, lease)
        else:
            _log.error("result refused", job=str(job), lease=lease, message=answer.message)
            self._without_results = f"the server refused the results: {answer.message}"

    async def _bring(self, end: SpooledEnd) -> None:
        """Upload the document; what is lost on the way is tried again."""
        try:
            await self._upload(end)
            self._uploaded = True
        except UploadRejected as error:
            if error.reason:
                _log.error("output refused", job=str(end.job), lease=end.lease, reason=error.reason)
                self._without_results = error.reason
            else:
                _log.warning("output not wanted", job=str(end.job), lease=end.lease)
                await self._jobs.acknowledged(end.job, end.lease)
                return
        except MetalmarkError as error:
            _log.warning("output not uploaded", job=str(end.job), lease=end.lease, error=str(error))
            self._wait(self._pace.upload_again_s)
        finally:
            self._uploading = False
        self._asking.look_again()

    def _refused(self, answer: Taken | Refused) -> bool:
        """Deal with a refusal; return whether what was refused is to be said again."""
        if isinstance(answer, Taken):
            return False
        if answer.reason is RefusalReason.BUSY:
            self._wait(self._pace.again_s)
            return True
        if answer.reason in _GONE:
            if self.job.end is None:
                _log.warning("job lost", job=str(self.job.job), lease=self.job.lease, reason=str(answer.reason))
                self._jobs.lost(self.job.job, self.job.lease)
            return False
        _log.error("message refused", job=str(self.job.job), reason=str(answer.reason), message=answer.message)
        return False

    def _wait(self, seconds: float) -> None:
        self._pausing = True

        async def pause() -> None:
            await self._asking.pause(seconds)
            self._pausing = False
            self._asking.look_again()

        self._asking.start(pause)
