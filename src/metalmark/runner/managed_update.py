"""The updates of an install that `metalmark runner install-service` made: fetched, tried, kept or taken back.

An update is carried out between jobs: claiming stops, the hands become empty, the artifact is fetched, checked and
installed beside the version that runs, smoke-tested, made the current one under a trial, and started in this process's
place. It has a minute to have a ``ready`` taken by a server. A version that failed is left alone for an hour, then for
two, and so on up to a day; another artifact is tried at once.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import structlog

from metalmark.client import ConnectionSettings, download_update
from metalmark.model import MetalmarkError, RequestRefused, StableError
from metalmark.runner.installation import WORK_PREFIX, Installation, InstalledVersion, Trial
from metalmark.runner.self_update import Hands, NoUpdates, Restart, UpdateOffer, Updates
from metalmark.runner.version_folder import install_artifact
from metalmark.system import Clock, SystemClock, in_thread, published

TRIAL_S = 60.0
"""Within which a new version has to have a ``ready`` acknowledged."""
MAX_DOWNLOAD_BYTES = 524_288_000
_FIRST_PAUSE_S = 3600.0
_LONGEST_PAUSE_S = 86_400.0
_FAILURES = "failures.json"
_KEPT_FAILURES = 64
_GONE = (404, 410)
_PROVED = "name the server with https:// and a certificate that is checked (--ca-file), or give --no-auto-update"
_log = structlog.get_logger(__name__)

Fetch = Callable[[UpdateOffer, Path], Awaitable[None]]
"""Fetches what an offer is about into a new file, and checks it."""


@dataclass(frozen=True, kw_only=True)
class _Failure:
    count: int
    last_s: float
    """When, in seconds since the epoch: it has to outlive a reboot."""

    def until_s(self) -> float:
        return self.last_s + min(_FIRST_PAUSE_S * 2.0 ** min(self.count - 1, 16), _LONGEST_PAUSE_S)


class ManagedUpdates(Updates):
    """Updates of the install that this process runs from.

    Args:
        installation: Its folder.
        current: The version that runs.
        trial: The trial that it is on, if it is.
        fetch: How an artifact is fetched.
        arguments: This process's command line, which another version has to understand.
        clock: Where time is read.
        accepts: Whether offers are carried out; a trial is ended in either case.
        refusal: Why offers of this server are not, in words: whoever speaks for it decides what runs. It is said once.
    """

    def __init__(
        self,
        installation: Installation,
        current: InstalledVersion,
        *,
        trial: Trial | None,
        fetch: Fetch,
        arguments: Sequence[str],
        clock: Clock,
        accepts: bool = True,
        refusal: str = "",
    ) -> None:
        self._installation = installation
        self._current = current
        self._trial = trial
        self._fetch = fetch
        self._arguments = tuple(arguments)
        self._clock = clock
        self._accepts = accepts and not refusal
        if accepts and refusal:
            _log.warning("this runner does not update itself", why=refusal, hint=_PROVED)
        self._offer: UpdateOffer | None = None
        self._news = anyio.Event()
        self._proved = anyio.Event()

    @property
    def checksum(self) -> str | None:
        """SHA-256 of the artifact that this version was made from; zeros for a copy, which every artifact replaces."""
        return (self._current.checksum or "0" * 64) if self._accepts else None

    @property
    def on_trial(self) -> bool:
        """Whether this version has not proved itself yet."""
        return self._trial is not None and not self._proved.is_set()

    def offered(self, version: str, url: str, checksum: str) -> None:
        """Remember the offer; `run` looks at it when there is time."""
        offer = UpdateOffer(version=version, url=url, checksum=checksum)
        if self._accepts and offer.checksum != self._current.checksum and offer != self._offer:
            self._offer = offer
            self._news.set()

    def acknowledged(self) -> None:
        """This version works."""
        self._proved.set()

    async def run(self, hands: Hands) -> Restart:
        """Prove this version, then carry out offers."""
        if self._trial is not None and not await self._proves_itself():
            # What waits to be acknowledged is on disk, and the version before will say it.
            hands.stop_claiming()
            await self._failed(self._current.checksum)
            await in_thread(self._installation.take_back, self._trial)
            return Restart(program=self._installation.launcher, why="no server took the new version")
        while True:
            offer = await self._next_offer()
            _log.info("an update waits for the jobs in hand", version=offer.version)
            hands.stop_claiming()
            await hands.empty()
            # A job takes its time, and so there may be a later offer by now.
            offer = self._offer or offer
            try:
                installed = await self._install(offer)
            except (MetalmarkError, OSError) as error:
                _log.error("the update failed", version=offer.version, error=str(error))
                await self._failed(offer.checksum)
                self._forget_if_withdrawn(offer, error)
                hands.resume_claiming()
                continue
            _log.info("updated", version=installed.version, folder=installed.name)
            return Restart(program=self._installation.launcher, why=f"version {installed.version} is installed")

    async def _proves_itself(self) -> bool:
        deadline_s = self._clock.monotonic_s() + TRIAL_S
        async with anyio.create_task_group() as tasks:

            async def run_out() -> None:
                await self._clock.sleep_s(deadline_s - self._clock.monotonic_s())
                tasks.cancel_scope.cancel()

            tasks.start_soon(run_out)
            await self._proved.wait()
            tasks.cancel_scope.cancel()
        if not self._proved.is_set():
            _log.error("no server took this version in time; going back", version=self._current.version)
            return False
        await in_thread(self._installation.end_trial)
        _log.info("this version has proved itself", version=self._current.version)
        return True

    async def _next_offer(self) -> UpdateOffer:
        """Wait for an offer that is to be carried out now."""
        while True:
            wait_s = await self._wait_s()
            if wait_s is not None and wait_s <= 0:
                assert self._offer is not None
                return self._offer
            self._news = anyio.Event()
            if wait_s is None:
                await self._news.wait()
                continue
            async with anyio.create_task_group() as tasks:

                async def run_out(seconds: float = wait_s) -> None:
                    # In pieces: the clock of the pauses is the one that may be set.
                    await self._clock.sleep_s(min(seconds, _FIRST_PAUSE_S))
                    self._news.set()

                tasks.start_soon(run_out)
                await self._news.wait()
                tasks.cancel_scope.cancel()

    async def _wait_s(self) -> float | None:
        """Return how long the offer has to wait; None: there is none."""
        if self._offer is None:
            return None
        failure = (await in_thread(self._failures)).get(self._offer.checksum)
        if failure is None:
            return 0.0
        now_s = self._clock.now().timestamp()
        # A clock that was set back does not postpone it for ever.
        return 0.0 if failure.last_s > now_s else failure.until_s() - now_s

    async def _install(self, offer: UpdateOffer) -> InstalledVersion:
        installation, current = self._installation, self._current
        with installation.alone():
            if await in_thread(installation.current) != current:
                raise StableError(
                    "another version was installed beside this one", why="this process was not started again since"
                )
            await in_thread(installation.discard_all_but, current.name)
            with tempfile.TemporaryDirectory(prefix=WORK_PREFIX, dir=installation.root) as place:
                artifact = Path(place) / "artifact.tar"
                await self._fetch(offer, artifact)
                version = await install_artifact(
                    installation, artifact, checksum=offer.checksum, arguments=self._arguments
                )
            await in_thread(installation.begin_trial, Trial(before=current.name, name=version.name))
        return version

    def _forget_if_withdrawn(self, offer: UpdateOffer, error: Exception) -> None:
        # Trying again would stop claims again for nothing. Should it be published once more, it is offered once more.
        if isinstance(error, RequestRefused) and error.status in _GONE and self._offer == offer:
            self._offer = None

    async def _failed(self, checksum: str | None) -> None:
        if checksum is not None:
            await in_thread(self._keep_failure, checksum)

    def _keep_failure(self, checksum: str) -> None:
        failures = self._failures()
        count = failures[checksum].count + 1 if checksum in failures else 1
        failures.pop(checksum, None)
        failures[checksum] = _Failure(count=count, last_s=self._clock.now().timestamp())
        kept = list(failures.items())[-_KEPT_FAILURES:]
        with suppress(OSError, MetalmarkError), published(self._installation.root / _FAILURES) as stream:
            stream.write(json.dumps({key: [found.count, found.last_s] for key, found in kept}).encode())

    def _failures(self) -> dict[str, _Failure]:
        try:
            found = json.loads((self._installation.root / _FAILURES).read_text("utf-8"))
            return {
                str(key): _Failure(count=int(count), last_s=float(last_s)) for key, (count, last_s) in found.items()
            }
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def note_taken_back(self) -> None:
        """Keep that a version was taken back by the launcher, so that it is not tried again at once. Blocking."""
        failed = self._installation.take_failure()
        if failed is not None and failed.checksum is not None:
            _log.warning("a version was taken back", version=failed.version, folder=failed.name)
            self._keep_failure(failed.checksum)


def find_updates(
    settings: ConnectionSettings,
    *,
    wanted: bool,
    max_download_bytes: int,
    environment: Mapping[str, str],
    arguments: Sequence[str],
) -> Updates:
    """Return the updates of this process's own install. Blocking.

    Args:
        settings: The server that offers them.
        wanted: False with ``--no-auto-update``.
        max_download_bytes: The largest artifact that is fetched.
        environment: Where ``SSL_CERT_FILE`` is read.
        arguments: This process's command line.
    """
    installation = Installation.of_this_process()
    current = None if installation is None else installation.read(Path(sys.prefix).resolve().name)
    if installation is None or current is None:
        advice = "update it as it was installed (pip install --upgrade metalmark), or see `runner install-service`"
        return NoUpdates(advice if wanted else "")

    async def fetch(offer: UpdateOffer, target: Path) -> None:
        await download_update(
            settings,
            offer.url,
            target,
            checksum=offer.checksum,
            max_bytes=max_download_bytes,
            environment=environment,
        )

    updates = ManagedUpdates(
        installation,
        current,
        trial=installation.trial(),
        fetch=fetch,
        arguments=arguments,
        clock=SystemClock(),
        accepts=wanted,
        refusal=settings.why_unproved,
    )
    updates.note_taken_back()
    return updates
