"""What one connection to a server of ours says of one job, until all of it is taken."""

from __future__ import annotations

from metalmark.model import Phase
from metalmark.runner.end_teller import EndTeller, Upload
from metalmark.runner.job_in_hand import JobInHand
from metalmark.runner.job_voice import JobVoice
from metalmark.runner.output_teller import OutputTeller
from metalmark.runner.phase_teller import PhaseTeller
from metalmark.wire import Began, Refused, Taken


class JobTeller:
    """Tells of one job over one connection. Nothing here outlives the connection but what the job itself knows.

    Args:
        voice: How it is said.
        upload: Uploads an end's document.
        inline_max: Size of a document above which it is uploaded, in bytes.
    """

    def __init__(self, voice: JobVoice, *, upload: Upload, inline_max: int) -> None:
        self._voice = voice
        self._began = False
        self._output = OutputTeller(voice)
        self._phases = PhaseTeller(voice, output=self._output)
        self._end = EndTeller(voice, output=self._output, upload=upload, inline_max=inline_max)

    @property
    def job(self) -> JobInHand:
        """Whom it tells of."""
        return self._voice.job

    async def tell(self) -> None:
        """Say what was not said yet, as far as it can be said now.

        Raises:
            ChannelLost: The connection is over.
        """
        if self._voice.waits:
            return
        if self.job.began and not self._began:
            await self._tell_began()
        await self._phases.tell()
        await self._output.tell()
        await self._phases.tell()
        if self.job.end is not None:
            await self._end.tell(self.job.end)

    async def _tell_began(self) -> None:
        self._began = True
        phase, iteration = self.job.phase or (None, 0)
        if phase is Phase.EXEC:
            # One message for both.
            self._phases.is_told(self.job.phase)
        else:
            iteration = 0

        async def answered(answer: Taken | Refused) -> None:
            if self._voice.is_refused(answer):
                self._began = False

        await self._voice.asking.ask(
            lambda number: Began(id=number, job=self.job.job, lease=self.job.lease, iteration=iteration),
            answered,
            limit_s=self._voice.pace.answer_s,
        )
