"""A runner that updates itself: real processes, real wheels, a real server. One that works, one that dies, one that
never gets a ``ready`` through."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from uuid import UUID

import pytest
from tests.integration.runner.artifact_variants import variant
from tests.integration.server.channel.conftest import Rack, rack
from tests.integration.server.channel.test_updates import publish

from metalmark.runner import Installation
from metalmark.runner.managed_update import TRIAL_S
from metalmark.runner.version_folder import artifact_checksum, install_artifact
from metalmark.server import ServerContext, update_offers
from metalmark.store.runners import find_proof

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(900)]

_WITHIN_S = 150.0


class Service:
    """A runner that is started through the launcher, as its unit does it."""

    def __init__(self, installation: Installation, folder: Path, server: Rack) -> None:
        self.installation = installation
        self.runner = server.runner()
        self.log = folder / "log"
        self._folder = folder
        self._server = server
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        key = self._folder / "key"
        key.write_text(self.runner.key)
        key.chmod(0o600)
        home = self._folder / "home"
        words = ["runner", "up", "--host", self._server.server.url, "--runner", str(self.runner.runner)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self.installation.launcher, *words, "--key-file", str(key), "--danger-allow-no-sandbox"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "METALMARK_HOME": str(home), "HOME": str(self._folder)},
                start_new_session=True,
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def seen_version(self) -> str | None:
        """Return the version that the server last heard of."""

        async def read(context: ServerContext) -> str | None:
            async with context.store.read() as connection:
                proof = await find_proof(connection, runner_id=UUID(str(self.runner.runner)))
            return None if proof is None else proof.version

        return self._server.call(read)

    def until(self, what: str, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _WITHIN_S
        while not is_so():
            assert time.monotonic() < deadline, f"{what}: not in time\n{self.log.read_text()[-4000:]}"
            time.sleep(0.2)

    def stop(self) -> int:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(30)


@contextmanager
def serving(installation: Installation, folder: Path, server: Rack) -> Iterator[Service]:
    service = Service(installation, folder, server)
    try:
        service.start()
        yield service
    finally:
        service.end()


async def test_an_install_updates_itself_and_takes_back_what_does_not_work(
    update_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soak: bool
) -> None:
    monkeypatch.setattr(update_offers, "LOOK_EVERY_S", 0.0)
    # Only the full counts wait for as long as a user's runner does.
    trial_s = TRIAL_S if soak else 10.0
    quick = {"metalmark/runner/managed_update.py": (f"TRIAL_S = {TRIAL_S}", f"TRIAL_S = {trial_s}")}
    installation = Installation(tmp_path / "opt")
    first = variant(update_artifact, tmp_path / "first.tar", "6.0", quick)
    made = await install_artifact(installation, first, checksum=artifact_checksum(first))
    installation.switch(made.name)
    good = variant(update_artifact, tmp_path / "good.tar", "7.0", quick)
    mute = variant(
        update_artifact,
        tmp_path / "mute.tar",
        "7.1",
        {
            **quick,
            "metalmark/runner/link.py": (
                "        while True:\n",
                "        await self._clock.sleep_s(9e9)\n        while True:\n",
            ),
        },
    )
    dead = variant(
        update_artifact,
        tmp_path / "dead.tar",
        "7.2",
        {
            **quick,
            "metalmark/runner/link.py": ("        while True:\n", "        raise SystemExit(9)\n        while True:\n"),
        },
    )
    with rack(
        tmp_path / "server", "sqlite:///" + str(tmp_path / "server.db"), jobs={"heartbeat_timeout_s": 6}
    ) as server:
        with serving(installation, tmp_path, server) as service:
            service.until("the first version is connected", lambda: service.seen_version() == "6.0")

            publish(server, good)
            service.until("the good version is connected", lambda: service.seen_version() == "7.0")
            service.until("the trial is over", lambda: not (installation.root / "trial").exists())
            current = installation.current()
            assert current is not None
            assert current.version == "7.0"
            assert service.process.poll() is None, "the process stays the same for whoever started it"

            before = publish(server, mute)
            service.until("the mute version is current", lambda: str(installation.current()).find("'7.1'") > 0)
            service.until("the good version is back", lambda: installation.current() == current)
            service.until("the failure is kept", lambda: before in failures(installation))
            assert service.process.poll() is None
            # Never sooner: on a slow machine a good version would be taken back. From its first line to the verdict.
            assert trial_s - 3 < trial_of(service, "7.1") < trial_s + 30

            publish(server, dead)
            service.until("the dead version ends", lambda: service.process.poll() is not None)
            found = installation.current()
            assert found is not None
            assert found.version == "7.2"
            service.start()
            service.until("the good version is current again", lambda: installation.current() == current)
            service.until("the failure is kept", lambda: artifact_checksum(dead) in failures(installation))
            service.until("and at work", lambda: service.log.read_text().count('"event": "connected"') == 4)
            assert service.stop() == 0


def trial_of(service: Service, version: str) -> float:
    """Return for how many seconds a version was tried that was taken back, by its log."""
    events = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
    (end,) = (
        number
        for number, event in enumerate(events)
        if event.get("version") == version and "going back" in event["event"]
    )
    began = max(number for number in range(end) if events[number]["event"] == "runner started")
    times = [datetime.fromisoformat(events[number]["timestamp"]) for number in (began, end)]
    return (times[1] - times[0]).total_seconds()


def failures(installation: Installation) -> dict[str, object]:
    with suppress(OSError, ValueError):
        found: dict[str, object] = json.loads((installation.root / "failures.json").read_text())
        return found
    return {}
