"""Sends what a job prints while it prints it."""

from __future__ import annotations

from metalmark.runner.job_voice import JobVoice
from metalmark.wire import LiveOutput, RefusalReason, Refused, Taken


class OutputTeller:
    """Tells the output of one job over one connection.

    Args:
        voice: How it is said.
    """

    def __init__(self, voice: JobVoice) -> None:
        self._voice = voice
        self._taken_offset = 0
        self._sending = False
        self.sent_offset = 0
        """Up to where the output is sent, in bytes; whether that was taken is not known yet."""

    @property
    def is_taken(self) -> bool:
        """Whether the server has taken all that there is."""
        output = self._voice.job.output
        return not self._sending and max(self._taken_offset, output.start_offset) >= output.end_offset

    async def tell(self) -> None:
        """Send the next part, if none is under way.

        One message at a time: what is printed meanwhile goes into the next, so that a slow network gets larger ones.

        Raises:
            ChannelLost: The connection is over.
        """
        job, output = self._voice.job, self._voice.job.output
        section = None if self._sending else output.read(self._taken_offset)
        if section is None:
            return
        end = section.offset + section.size_bytes
        self._sending = True
        self.sent_offset = end

        async def answered(answer: Taken | Refused) -> None:
            self._sending = False
            if isinstance(answer, Refused) and answer.reason is RefusalReason.TOO_MUCH_OUTPUT:
                output.close()
            elif self._voice.is_refused(answer):
                self.sent_offset = self._taken_offset
            else:
                self._taken_offset = end
                output.forget(end)

        await self._voice.asking.ask(
            lambda number: LiveOutput(
                id=number, job=job.job, lease=job.lease, offset=section.offset, chunks=section.chunks
            ),
            answered,
            limit_s=self._voice.pace.answer_s,
        )
