# ruff: noqa: TID251 - runs before there is an event loop, and outlives those of single tests
"""A PostgreSQL server of its own for tests: made in a folder, run by somebody who is not root, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

_DEADLINE_S = 60
_SETTINGS = {
    "listen_addresses": "''",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "jit": "off",
    "log_min_messages": "fatal",
    # Away from what a machine's own locale sorts by: what the tables say has to be enough.
    "lc_messages": "'C'",
}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A server that runs, on a socket in its own folder."""

    folder: Path
    programs: Path
    """Folder of the server's programs."""
    owner: pwd.struct_passwd | None = None
    """Whom it runs as, when that is somebody else."""

    @property
    def pid(self) -> int:
        """Of the postmaster, to stop it with signals."""
        return int((self.folder / "data" / "postmaster.pid").read_text(encoding="utf-8").split()[0])

    def processes(self) -> list[int]:
        """Return the process ids of the postmaster and of all that it started."""
        pid = self.pid
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return [pid, *(int(child) for child in listed)]

    def signal(self, number: int) -> None:
        """Send a signal to every process of it."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """End every process of it by SIGKILL, the postmaster first, so that it starts none anew."""
        killed = self.processes()
        self.signal(signal.SIGKILL)
        deadline = time.monotonic() + _DEADLINE_S
        # While one is there, a new postmaster finds the shared memory in use.
        while any(_runs(pid) for pid in killed):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # The postmaster that nobody has waited for yet looks as if it still had the folder and the socket.
        for lock in (self.folder / "data" / "postmaster.pid", *self.folder.glob(".s.PGSQL.*")):
            lock.unlink()

    def start(self) -> None:
        """Start it, which may have been killed, and wait until it serves.

        Raises:
            RuntimeError: It does not start.
        """
        self._control("start")

    def stop(self) -> None:
        """End it, if it runs, without care."""
        # A test may have stopped it with a signal, and then it does not hear the order to end; or killed it.
        with suppress(OSError, ValueError, IndexError):
            os.kill(self.pid, signal.SIGCONT)
        with suppress(RuntimeError):
            self._control("-m", "immediate", "stop")

    def _control(self, *words: str) -> None:
        data = self.folder / "data"
        _run(
            [self.programs / "pg_ctl", "-D", data, "-l", self.folder / "log", "-w", "-s", *words],
            self.folder,
            self.owner,
        )

    def url(self, database: str) -> str:
        """Return the address of one of its databases."""
        return f"postgresql://metalmark@/{database}?host={self.folder}"

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """Give the address of a new database: a copy of a template, which nobody is connected to meanwhile."""
        name = f"test_{token_hex(6)}"
        self.run_sql(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        try:
            yield self.url(name)
        finally:
            self.run_sql(f"DROP DATABASE {name} WITH (FORCE)")

    def run_sql(self, statement: str, database: str = "postgres") -> None:
        """Run a statement as the owner of everything."""
        import psycopg  # noqa: PLC0415 - only those who test on PostgreSQL need it

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement.encode())


def find_postgresql() -> Path | None:
    """Return the folder with the newest server's programs, or None where none is installed."""
    beside = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    paths = [*([Path(beside)] if beside else []), *reversed(found)]
    return paths[0].parent if paths else None


@contextmanager
def running_postgresql(**settings: str) -> Iterator[Cluster]:
    """Run a server until the context ends.

    Args:
        settings: Further settings of ``postgresql.conf``, with their quotes.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
        RuntimeError: It does not start.
    """
    programs = find_postgresql()
    if programs is None:
        raise FileNotFoundError("PostgreSQL is not installed: apt-get install postgresql")
    # A short path, as a socket's name has 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="mm-pg-"))
    try:
        owner = _owner()
        if owner is not None:
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        _make(programs, folder, owner, settings)
        cluster = Cluster(folder=folder, programs=programs, owner=owner)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _owner() -> pwd.struct_passwd | None:
    """Return who the server runs as when root may not: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("there is neither a user postgres nor nobody to run PostgreSQL as")


def _make(programs: Path, folder: Path, owner: pwd.struct_passwd | None, settings: dict[str, str]) -> None:
    options = ["-U", "metalmark", "-A", "trust", "-N", "-E", "UTF8", "--locale=C.UTF-8"]
    _run([programs / "initdb", "-D", folder / "data", *options], folder, owner)
    lines = [f"{name} = {value}" for name, value in {**_SETTINGS, **settings}.items()]
    lines.append(f"unix_socket_directories = '{folder}'")
    with (folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as configuration:
        configuration.write("\n".join(lines) + "\n")


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _run(command: list[str | Path], folder: Path, owner: pwd.struct_passwd | None) -> None:
    # Not a pipe: the server inherits what pg_ctl was given, and keeps it open.
    with (folder / "said").open("w+b") as said:
        result = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            timeout=_DEADLINE_S,
            check=False,
            user=None if owner is None else owner.pw_uid,
            group=None if owner is None else owner.pw_gid,
            extra_groups=None if owner is None else [],
        )
        said.seek(0)
        if result.returncode:
            text = said.read().decode(errors="replace")
            raise RuntimeError(f"{Path(command[0]).name} failed: {text}")
