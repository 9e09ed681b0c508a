"""Copies of a whole database, made while it is used; putting one back; and giving unused space back to the disk.

The copy of a SQLite database is a database file, that of PostgreSQL an archive of ``pg_dump``. Blobs are not in it.
They are written before the rows that name them and never changed, so blobs copied after the database go with it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import psycopg
from sqlalchemy import URL

from metalmark.model import InputError, NoSpace, StableError, StoreAway, StoreBusy
from metalmark.store.database import parse_database_url
from metalmark.store.sqlite_engine import create_private
from metalmark.system import find_tool, in_thread, published, run, sync_folder

_HOUR_S = 3600.0
_LOCK_S = 5.0
_HINT = "apt-get install postgresql-client"


async def back_up(url: str, target: Path) -> None:
    """Copy a database, as it is at one moment, to a file that is there complete or not at all.

    Args:
        url: Where the database is. It may be in use.
        target: Where the copy goes; a file that is there is replaced.

    Raises:
        InputError: The URL is none, or there is no such folder.
        StoreUnavailable: The database is busy or away.
        NoSpace: The disk of the copy is full.
        ToolMissing: PostgreSQL's ``pg_dump`` is not installed.
        StableError: It says that it cannot.
    """
    parsed = parse_database_url(url)
    if not await in_thread(target.parent.is_dir):
        raise InputError("target", str(target), "there is no such folder")
    if parsed.drivername == "sqlite":
        await in_thread(_back_up_sqlite, _file_of(parsed), target)
    else:
        await _back_up_postgresql(parsed, target)


async def restore(url: str, source: Path) -> None:
    """Put a copy in place of whatever a database holds. It takes place as a whole, or not at all.

    Args:
        url: Where the database is, or is to be. Nobody may use it meanwhile: stop every server first.
        source: A copy that `back_up` made of a database of the same kind.

    Raises:
        InputError: The URL is none, or the file is no such copy.
        StoreBusy: The database is in use.
        StoreUnavailable: It is away, or its disk is full.
        ToolMissing: PostgreSQL's ``pg_restore`` is not installed.
        StableError: It says that it cannot.
    """
    parsed = parse_database_url(url)
    if not await in_thread(source.is_file):
        raise InputError("source", str(source), "there is no such file")
    if parsed.drivername == "sqlite":
        await in_thread(_restore_sqlite, _file_of(parsed), source)
    else:
        await _restore_postgresql(parsed, source)


async def vacuum(url: str) -> None:
    """Give unused space of a database back to the disk, and refresh what the engine knows of its tables.

    Writes wait meanwhile on SQLite, which takes a second for some hundred megabytes.

    Raises:
        InputError: The URL is none.
        StoreUnavailable: The database is busy or away, or there is no space to do it in.
    """
    parsed = parse_database_url(url)
    await in_thread(_vacuum_sqlite if parsed.drivername == "sqlite" else _vacuum_postgresql, parsed)


def _file_of(url: URL) -> Path:
    return Path(url.database or "")


def _back_up_sqlite(database: Path, target: Path) -> None:
    if not database.is_file():
        raise StoreAway(f"there is no database {database}")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        # SQLite writes into a file that is there when it is empty; so it has the right mode from the beginning.
        create_private(partial)
        with closing(_connect(database)) as connection:
            connection.execute("VACUUM INTO ?", (str(partial),))
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(target)
        sync_folder(target.parent)
    except sqlite3.Error as error:
        raise _meaning(error, target) from error
    finally:
        partial.unlink(missing_ok=True)


def _restore_sqlite(database: Path, source: Path) -> None:
    try:
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as copy:
            _check_copy(copy, source)
            create_private(database)
            with closing(_connect(database)) as target:
                # Leaving the write-ahead log takes having the file alone, and no log of before outlives it.
                target.execute("PRAGMA journal_mode=DELETE").fetchone()
                target.execute("PRAGMA locking_mode=EXCLUSIVE").fetchone()
                target.execute("BEGIN EXCLUSIVE")
                target.execute("COMMIT")
                copy.backup(target)
    except sqlite3.Error as error:
        raise _meaning(error, database) from error


def _check_copy(copy: sqlite3.Connection, source: Path) -> None:
    try:
        healthy = copy.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
        ours = copy.execute("SELECT count(*) FROM sqlite_master WHERE name = 'schema_revisions'").fetchone() == (1,)
    except sqlite3.DatabaseError:
        healthy = ours = False
    if not (healthy and ours):
        raise InputError("source", str(source), "this is no copy of a Metalmark database, or it is damaged")


def _vacuum_sqlite(url: URL) -> None:
    database = _file_of(url)
    if not database.is_file():
        raise StoreAway(f"there is no database {database}")
    try:
        with closing(_connect(database)) as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            connection.execute("PRAGMA optimize")
    except sqlite3.Error as error:
        raise _meaning(error, database) from error


def _connect(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(database, timeout=_LOCK_S, isolation_level=None)


def _meaning(error: sqlite3.Error, path: Path) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusy(f"the database {path} is in use", hint="stop the server first")
    if code == sqlite3.SQLITE_FULL:
        return NoSpace(f"there is no space left for {path}")
    return StoreAway(f"{path} cannot be used ({error})")


def _vacuum_postgresql(url: URL) -> None:
    try:
        with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE)")
    except psycopg.Error as error:
        raise StoreAway("the database cannot be reached") from error


async def _back_up_postgresql(url: URL, target: Path) -> None:
    tool = find_tool("pg_dump", hint=_HINT)
    with published(target) as stream:
        await _run_tool([tool, "--format=custom", "--no-owner", "--no-privileges", _place(url)], url, stream.fileno())


async def _restore_postgresql(url: URL, source: Path) -> None:
    tool = find_tool("pg_restore", hint=_HINT)
    with source.open("rb") as stream:
        if stream.read(5) != b"PGDMP":
            raise InputError("source", str(source), "this is no archive of pg_dump")
    await in_thread(_refuse_when_used, url)
    options = ["--single-transaction", "--clean", "--if-exists", "--no-owner", "--no-privileges", "--exit-on-error"]
    await _run_tool([tool, *options, f"--dbname={_place(url)}", str(source)], url, None)


def _refuse_when_used(url: URL) -> None:
    used = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'metalmark' AND pid <> pg_backend_pid()"
    )
    try:
        with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
            row = connection.execute(used).fetchone()
    except psycopg.Error as error:
        raise StoreAway("the database cannot be reached") from error
    if row != (0,):
        raise StoreBusy("the database is in use", hint="stop every server first")


def _place(url: URL) -> str:
    # Other users of the machine can read a command's arguments: the password goes another way.
    plain = URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)
    return plain.render_as_string(hide_password=False)


async def _run_tool(argv: Sequence[str], url: URL, stdout: int | None) -> None:
    path = {"PATH": os.defpath}
    env: Mapping[str, str] = {**path, "PGPASSWORD": str(url.password)} if url.password is not None else path
    ended = await run(argv, timeout_s=_HOUR_S, env=env, stdout=stdout)
    if ended.returncode:
        raise StableError(f"{Path(argv[0]).name} failed", why=ended.error_text)
