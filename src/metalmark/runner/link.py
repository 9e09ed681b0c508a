"""The connection of a runner to its server: kept up for ever, whatever happens to it.

A session tells over one connection what the server was not told yet; when the connection is over, the next one is made
after a pause that grows, with jitter, so that a thousand runners do not come back in the same second.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import structlog

from metalmark.client import (
    ChannelConnection,
    ChannelDeadlines,
    ConnectionSettings,
    OutputFile,
    open_channel,
    open_session,
    upload_output,
)
from metalmark.model import ChannelLost, InputError, MetalmarkError, RequestRefused, StableError, TransientError
from metalmark.runner.end_file import SpooledEnd
from metalmark.runner.end_teller import UploadRejected
from metalmark.runner.jobs_in_hand import JobsInHand
from metalmark.runner.link_observer import LinkObserver
from metalmark.runner.runner_identity import RunnerIdentity
from metalmark.runner.self_update import Updates
from metalmark.runner.session_own import OwnSession
from metalmark.runner.session_pace import SessionPace
from metalmark.runner.session_public import PublicMemory, PublicSession
from metalmark.system import Clock, SystemClock
from metalmark.wire import SUBPROTOCOL

FIRST_WAIT_S = 1.0
"""Longest pause before the first new try; doubled after each further one in vain."""
LONGEST_WAIT_S = 30.0
_ASKED_MAX_S = 600.0
_LASTING = (StableError, InputError)
"""What no further try alone puts right."""
_log = structlog.get_logger(__name__)


class Link:
    """Keeps a runner connected.

    Args:
        settings: The server, the runner's key as the credential, trust, proxies.
        identity: Who connects.
        jobs: The jobs in hand.
        updates: Takes offers of another version.
        environment: Where ``SSL_CERT_FILE`` is read.
        observer: Sees what happens.
        clock: Waits.
        pace: Times of a session.
        deadlines: Times of a connection.
        jitter: Returns a number from 0 to 1.
    """

    def __init__(
        self,
        *,
        settings: ConnectionSettings,
        identity: RunnerIdentity,
        jobs: JobsInHand,
        updates: Updates,
        environment: Mapping[str, str],
        observer: LinkObserver | None = None,
        clock: Clock | None = None,
        pace: SessionPace | None = None,
        deadlines: ChannelDeadlines | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._jobs = jobs
        self._updates = updates
        self._environment = environment
        self._observer = observer or LinkObserver()
        self._clock = clock or SystemClock()
        self._pace = pace or SessionPace()
        self._deadlines = deadlines or ChannelDeadlines()
        self._jitter = jitter
        self._memory = PublicMemory()

    async def run(self) -> None:
        """Connect, and connect again, until canceled.

        Raises:
            ChannelRefused: The server will not have this runner, and no job is running that would be lost with it.
            StableError, InputError: Something on this side keeps every connection from being made; as above.
        """
        failures = 0
        while True:
            self._observer.connecting()
            worked, error = await self._once()
            if error is None:
                failures = 0
                self._observer.disconnected(None, 0.0)
                continue
            if isinstance(error, _LASTING) and not self._is_busy:
                raise error
            failures = 1 if worked else failures + 1
            wait_s = self._wait_s(failures, error)
            self._observer.disconnected(error, wait_s)
            await self._clock.sleep_s(wait_s)

    @property
    def _is_busy(self) -> bool:
        """Whether a job runs: its result may still be of use, to an operator who puts right what is wrong."""
        return any(job.end is None for job in self._jobs.holding())

    async def _once(self) -> tuple[bool, MetalmarkError | None]:
        """Connect once, and stay until the connection is over; return whether it worked and why it ended."""
        session: OwnSession | PublicSession | None = None
        heard = True
        # What a server of public messages gave can be told in those only, also to one that learned more since.
        public = any(job.lease == 0 for job in self._jobs.holding())
        try:
            async with self._open(() if public else (SUBPROTOCOL,)) as connection:
                heard = False
                try:
                    session = self._session(connection, deliver_only=public)
                    await session.run()
                finally:
                    heard = connection.heard
        except (TransientError, StableError, InputError) as error:
            if isinstance(error, ChannelLost) and error.code == 1006 and not heard:
                error.hint = "some servers hang up like this on a key that they do not know"
            return session is not None and session.worked, error
        return True, None

    def _open(self, subprotocols: Sequence[str]) -> AbstractAsyncContextManager[ChannelConnection]:
        return open_channel(
            self._settings,
            self._identity.runner,
            subprotocols=subprotocols,
            environment=self._environment,
            deadlines=self._deadlines,
        )

    def _session(self, connection: ChannelConnection, *, deliver_only: bool) -> OwnSession | PublicSession:
        if connection.subprotocol == SUBPROTOCOL:
            return OwnSession(
                connection,
                identity=self._identity,
                jobs=self._jobs,
                updates=self._updates,
                observer=self._observer,
                clock=self._clock,
                upload=self._upload,
                pace=self._pace,
            )
        return PublicSession(
            connection,
            identity=self._identity,
            jobs=self._jobs,
            updates=self._updates,
            observer=self._observer,
            memory=self._memory,
            pace=self._pace,
            deliver_only=deliver_only,
        )

    def _wait_s(self, failures: int, error: MetalmarkError) -> float:
        longest_s = min(FIRST_WAIT_S * 2.0 ** min(failures - 1, 16), LONGEST_WAIT_S)
        asked_s = error.retry_after_s if isinstance(error, ChannelLost) else None
        if isinstance(error, _LASTING):
            longest_s = LONGEST_WAIT_S
        # What a server asks for is the least, and those who were asked the same do not come back together either.
        return min(asked_s or 0.0, _ASKED_MAX_S) + self._jitter() * longest_s

    async def _upload(self, end: SpooledEnd) -> None:
        """Upload the document of an end.

        Raises:
            UploadRejected: The server will not take it.
            MetalmarkError: Another try may succeed.
        """
        output = OutputFile(
            job=end.job, lease=end.lease, checksum=end.checksum, size_bytes=end.size_bytes, path=end.document
        )
        # Tried again by who asked, and only while there is a channel to the server.
        settings = replace(self._settings, patience=replace(self._settings.patience, attempts=1))
        try:
            async with open_session(settings, environment=self._environment, notify=_log.info) as session:
                await upload_output(session, self._identity.runner, output)
        except RequestRefused as error:
            if error.status in (404, 409):
                raise UploadRejected("") from None
            if error.status == 413:
                raise UploadRejected(f"the server does not take output of {end.size_bytes} bytes") from None
            raise
        except OSError as error:
            raise UploadRejected(f"the results cannot be read back from the runner's disk: {error.strerror}") from None
