"""Says which phase a job is in."""

from __future__ import annotations

from functools import partial

from metalmark.model import Phase
from metalmark.runner.job_voice import JobVoice
from metalmark.runner.output_teller import OutputTeller
from metalmark.wire import Body, PhaseTold, Refused, Taken


class PhaseTeller:
    """Tells the phases of one job over one connection.

    Args:
        voice: How it is said.
        output: Its live output, which goes before the phases that follow it.
    """

    def __init__(self, voice: JobVoice, *, output: OutputTeller) -> None:
        self._voice = voice
        self._output = output
        self._told: tuple[Phase, int] | None = None
        self._due: tuple[Phase, int, int] | None = None
        self._lasting: tuple[Phase, int] | None = None
        self._timing = False

    async def tell(self) -> None:
        """Say which phase the job is in, after what was printed before: whoever follows sees what belongs to what.

        Raises:
            ChannelLost: The connection is over.
        """
        job = self._voice.job
        while job.end is None:
            if self._due is None and job.phase not in (None, self._told) and self._counts(job.phase):
                self._due = (*job.phase, job.phase_offset)
            # Phases that are over by the time that their turn comes are passed over but for the one that was due: were
            # it always the latest, a job that prints all the time would be in none.
            if self._due is None or max(self._output.sent_offset, job.output.start_offset) < self._due[2]:
                return
            phase, iteration, _ = self._due
            self._told, self._due = (phase, iteration), None
            await self._say(phase, iteration)

    def is_told(self, phase: tuple[Phase, int] | None) -> None:
        """Another message has said this phase."""
        self._told = phase

    def _counts(self, phase: tuple[Phase, int]) -> bool:
        """Whether a phase is to be told. What passes in no time costs a server more than it is worth to who looks."""
        if phase[0] is Phase.EXEC or phase == self._lasting:
            return True
        if not self._timing:
            self._timing = True
            self._voice.asking.start(partial(self._time, phase))
        return False

    async def _time(self, phase: tuple[Phase, int]) -> None:
        await self._voice.asking.pause(self._voice.pace.phase_s)
        self._timing, self._lasting = False, phase
        self._voice.asking.look_again()

    async def _say(self, phase: Phase, iteration: int) -> None:
        job = self._voice.job

        async def answered(answer: Taken | Refused) -> None:
            if self._voice.is_refused(answer):
                self._told = None

        def message(number: int) -> Body:
            return PhaseTold(id=number, job=job.job, lease=job.lease, phase=phase, iteration=iteration)

        await self._voice.asking.ask(message, answered, limit_s=self._voice.pace.answer_s)
