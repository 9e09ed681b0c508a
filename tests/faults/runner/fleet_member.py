"""A program that is many runners, each with its own connection, jobs in hand and spool; only the boxes are missing.

Arguments: URL of the server, folder, file with the key of each runner (JSON). It can be killed at any moment and
started again. What it executes and keeps it notes in ``<folder>/executed.txt``: `executed` before the end of a job is
brought onto the disk, `kept` afterwards, each with job and lease.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from functools import partial
from pathlib import Path
from uuid import uuid4

import anyio

from metalmark.client import ConnectionSettings, Credential, ServerAddress, parse_runner_key
from metalmark.model import Phase
from metalmark.runner.end_file import EndKind, EndOfJob, SpooledEnd
from metalmark.runner.job_in_hand import JobInHand
from metalmark.runner.jobs_in_hand import JobsInHand
from metalmark.runner.link import Link
from metalmark.runner.link_observer import LinkObserver
from metalmark.runner.result_spool import ResultSpool
from metalmark.runner.runner_identity import RunnerIdentity
from metalmark.runner.self_update import NoUpdates
from metalmark.runner.session_pace import SessionPace
from metalmark.runner.stop_request import Urgency
from metalmark.system import SystemClock, in_thread
from metalmark.wire import IterationOutput, JobOutput, ProvedCapabilities

_PACE = SessionPace(answer_s=3.0, end_answer_s=6.0, beat_max_s=1.0, again_s=0.1, drain_s=1.0)
_CAPABLE = ProvedCapabilities(os="linux", architecture="x86_64", sandboxes=("container",), vcpus=8)


class Member:
    """One runner."""

    def __init__(self, url: str, folder: Path, runner: str, key: Credential, notes: int) -> None:
        self._url = url
        self._folder = folder / runner
        self._runner = runner
        self._key = key
        self._notes = notes
        self._chance = random.Random()

    async def live(self) -> None:
        """Take jobs until killed."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with ResultSpool(self._folder) as spool:
            jobs = JobsInHand(spool, slots=self._chance.choice((1, 1, 2)), left=spool.read_back())
            link = Link(
                settings=ConnectionSettings(address=ServerAddress.parse(self._url), credential=self._key),
                identity=RunnerIdentity(
                    runner=self._runner, version="0", process=uuid4().hex, boot="boot", capabilities=_CAPABLE
                ),
                jobs=jobs,
                updates=NoUpdates(),
                observer=LinkObserver(),
                clock=SystemClock(),
                environment={},
                pace=_PACE,
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(jobs.serve, partial(self._execute, spool))
                await link.run()

    async def _execute(self, spool: ResultSpool, job: JobInHand) -> SpooledEnd:
        await in_thread(spool.begin, job.job, job.lease)
        scope = anyio.CancelScope()
        with scope, job.stop.cancelling(scope, at=Urgency.POLITE):
            for phase in Phase:
                job.enter(phase, 0 if phase in (Phase.PULL, Phase.ROOTFS) else 1)
                if phase is Phase.EXEC:
                    job.output.write(f"{job.job}\n".encode(), iteration=1, stream="stdout")
                await anyio.sleep(self._chance.choice((0.0, 0.001, 0.02)))
            if self._chance.random() < 0.02:
                # Some take long enough for a fault to come in between.
                await anyio.sleep(self._chance.uniform(0.5, 6.0))
        kind = EndKind.CANCELED if scope.cancelled_caught else EndKind.COMPLETED
        self._note("executed", job)
        end = await in_thread(spool.keep, job.job, job.lease, EndOfJob(kind=kind), partial(_write, job))
        self._note(f"kept-{kind}", job)
        return end

    def _note(self, what: str, job: JobInHand) -> None:
        os.write(self._notes, f"{what} {job.job} {job.lease} {self._runner}\n".encode())


def _write(job: JobInHand, stream: object) -> None:
    output = JobOutput(results=(IterationOutput(exit_code=0, stdout=f"{job.job} {job.lease}\n"),))
    stream.write(output.model_dump_json().encode())  # type: ignore[attr-defined]  # a binary file


async def _main(url: str, folder: Path, credentials: Path) -> None:
    notes = os.open(folder / "executed.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    members = [
        Member(url, folder, runner, parse_runner_key(key, source="a test"), notes)
        for runner, key in json.loads(credentials.read_text()).items()
    ]
    async with anyio.create_task_group() as tasks:
        for member in members:
            tasks.start_soon(member.live)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
