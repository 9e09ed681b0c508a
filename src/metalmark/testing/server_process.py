# ruff: noqa: TID251 - a test without an event loop starts, stops, kills and awaits the server from outside
"""``metalmark server up`` in a process of its own, to be talked to over its socket, and stopped and killed by tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import httpx

__all__ = ["UNLIMITED", "ServerProcess", "Settings", "running_server_process"]

Settings: TypeAlias = Mapping[str, "str | bool | int | float | list[str] | Settings"]
"""Keys of a configuration file, sections as mappings."""

UNLIMITED: Settings = {
    "address_requests": 0,
    "user_requests": 0,
    "registry_requests": 0,
    "sign_in_attempts": 0,
    "mails": 0,
    "runs": 0,
    "runner_connections": 0,
}
"""No rate limits: the section ``limits`` of a server that a suite sends thousands of requests."""

_START_S = 300
"""Long enough for an emulated machine; a process that ends instead is noticed at once."""
_STOP_S = 30


@dataclass(kw_only=True)
class ServerProcess:
    """One server process. It may be started again after its end, on the same port, database and storage."""

    folder: Path
    """Configuration, log, and what the settings do not put elsewhere."""

    settings: Settings
    port: int = field(default_factory=lambda: free_port())  # noqa: PLW0108 - defined below
    name: str = "server"
    """Tells processes of one folder apart."""
    host: str = "127.0.0.1"
    """Address that it listens on."""
    ca_file: Path | None = None
    """Authority of its certificate, where its settings name one."""

    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """``http://host:port``, or ``https://`` with a certificate."""
        return f"{'http' if self.ca_file is None else 'https'}://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """Return all that the process has printed, over all its starts."""
        path = self.folder / f"{self.name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def launch(self) -> None:
        """Start the process, without waiting for it to serve."""
        assert not self.alive
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / f"{self.name}.toml"
        config.write_text(toml_of({**self.settings, "server": {**self._server_section(), "bind": self._bind()}}))
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("METALMARK_", "BENCHER_"))
        }
        environment["METALMARK_HOME"] = str(self.folder / "home")
        command = [str(Path(sys.executable).with_name("metalmark")), "server", "up", "--config", str(config)]
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)

    def start(self) -> None:
        """Start the process and wait until it serves.

        Raises:
            RuntimeError: It ended instead, or does not serve in time.
        """
        self.launch()
        self.wait_until_ready()

    def wait_until_ready(self, *, seconds: float = _START_S) -> None:
        """Wait until ``/readyz`` answers 200.

        Raises:
            RuntimeError: The process ended instead, or does not serve in time.
        """
        deadline = time.monotonic() + seconds
        trusted = ssl.create_default_context(cafile=self.ca_file) if self.ca_file is not None else True
        while time.monotonic() < deadline:
            if not self.alive:
                message = f"the server ended:\n{self.log()[-4000:]}"
                raise RuntimeError(message)
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False, verify=trusted).status_code == 200:
                    return
            time.sleep(0.05)
        message = f"the server does not serve:\n{self.log()[-4000:]}"
        raise RuntimeError(message)

    def kill(self) -> None:
        """End the process by SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=_STOP_S)

    def suspend(self) -> None:
        """Stop the process by SIGSTOP; its sockets stay open and answer nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a stopped process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> int:
        """End the process by SIGTERM and return its exit code; SIGKILL when it takes too long."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGCONT)
        self._process.terminate()
        try:
            return self._process.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def admin_key(self) -> str:
        """Return the key of the first administrator, which the first start put into a file."""
        return (self.folder / "home/state/server/admin-key").read_text(encoding="ascii").strip()

    def _server_section(self) -> dict[str, str | bool | int | float | list[str] | Settings]:
        section = self.settings.get("server", {})
        assert isinstance(section, Mapping)
        return dict(section)

    def _bind(self) -> str:
        return f"{self.host}:{self.port}"


@contextmanager
def running_server_process(folder: Path, settings: Settings, *, name: str = "server") -> Iterator[ServerProcess]:
    """Run a server until the context ends."""
    server = ServerProcess(folder=folder, settings=settings, name=name)
    try:
        server.start()
        yield server
    finally:
        if server.alive:
            server.stop()


def free_port() -> int:
    """Return a TCP port of loopback that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def toml_of(settings: Settings) -> str:
    """Return settings as TOML: plain keys first, then the sections."""
    plain = [f"{name} = {json.dumps(value)}" for name, value in settings.items() if not isinstance(value, Mapping)]
    sections = [f"\n[{name}]\n{toml_of(value)}" for name, value in settings.items() if isinstance(value, Mapping)]
    return "\n".join([*plain, *sections]) + "\n"
