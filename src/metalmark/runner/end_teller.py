"""Hands in the end of a job: its document as an upload where that is large, then the message, until it is taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from metalmark.model import MetalmarkError
from metalmark.runner.end_file import SpooledEnd
from metalmark.runner.end_message import own_end
from metalmark.runner.job_voice import GONE, JobVoice
from metalmark.runner.output_teller import OutputTeller
from metalmark.system import in_thread
from metalmark.wire import Body, RefusalReason, Refused, Taken

_log = structlog.get_logger(__name__)

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


class EndTeller:
    """Tells the end of one job over one connection.

    Args:
        voice: How it is said.
        output: Its live output, which goes first.
        upload: Uploads an end's document.
        inline_max: Size of a document above which it is uploaded, in bytes.
    """

    def __init__(self, voice: JobVoice, *, output: OutputTeller, upload: Upload, inline_max: int) -> None:
        self._voice = voice
        self._output = output
        self._upload = upload
        self._inline_max = inline_max
        self._draining = False
        self._drained = False
        self._telling = False
        self._uploading = False
        self._uploaded = False
        self._without_results = ""

    async def tell(self, end: SpooledEnd) -> None:
        """Take the next step towards the end's being taken.

        Raises:
            ChannelLost: The connection is over.
        """
        large = end.size_bytes > self._inline_max and not self._without_results
        if large and not self._uploaded:
            if not self._uploading:
                self._uploading = True
                self._voice.asking.start(lambda: self._bring(end))
            return
        if self._telling or self._waits_for_output():
            return
        self._telling = True
        message = await in_thread(self._message_of, end, large)

        async def answered(answer: Taken | Refused) -> None:
            # In this order: the job is in hand until its end is off the disk, and is not told meanwhile.
            await self._answered(answer)
            self._telling = False

        # The number of a message is known only now.
        await self._voice.asking.ask(
            lambda number: message.model_copy(update={"id": number}), answered, limit_s=self._voice.pace.end_answer_s
        )

    def _message_of(self, end: SpooledEnd, large: bool) -> Body:  # noqa: FBT001  # called through a thread
        return own_end(end, message_id=0, uploaded=large, without_results=self._without_results)

    def _waits_for_output(self) -> bool:
        """Whether live output is still to be taken: after the end nobody takes it."""
        if self._drained or self._output.is_taken:
            return False
        if not self._draining:
            self._draining = True
            self._voice.asking.start(self._drain)
        return True

    async def _drain(self) -> None:
        await self._voice.asking.pause(self._voice.pace.drain_s)
        self._drained = True
        self._voice.asking.look_again()

    async def _answered(self, answer: Taken | Refused) -> None:
        voice = self._voice
        job, lease = voice.job.job, voice.job.lease
        if isinstance(answer, Taken) or answer.reason in GONE:
            if isinstance(answer, Refused):
                _log.warning("result not wanted", job=str(job), lease=lease, reason=str(answer.reason))
            await voice.jobs.acknowledged(job, lease)
        elif answer.reason is RefusalReason.NOT_UPLOADED:
            self._uploaded = False
            voice.wait(voice.pace.again_s)
        elif answer.reason is RefusalReason.BUSY:
            voice.wait(voice.pace.again_s)
        elif self._without_results:
            _log.error("result refused for good", job=str(job), lease=lease, message=answer.message)
            await voice.jobs.acknowledged(job, lease)
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
                await self._voice.jobs.acknowledged(end.job, end.lease)
                return
        except MetalmarkError as error:
            _log.warning("output not uploaded", job=str(end.job), lease=end.lease, error=str(error))
            self._voice.wait(self._voice.pace.upload_again_s)
        finally:
            self._uploading = False
        self._voice.asking.look_again()
