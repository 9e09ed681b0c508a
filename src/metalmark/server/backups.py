"""Copies of the database that an administrator asks a running server for."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

from metalmark.model import Conflict
from metalmark.server.context import ServerContext
from metalmark.store import back_up
from metalmark.system import in_thread, published

_PIECE_BYTES = 1024 * 1024
_FOLDER = "backups"


async def make_backup(context: ServerContext, *, compress: bool, upload: bool, remove: bool) -> datetime:
    """Copy the database while it is used, and return the time that the copy is named for.

    Args:
        context: The server's.
        compress: Whether the copy is compressed with gzip.
        upload: Whether it goes into the object store as well.
        remove: Whether the copy in the server's folder is deleted once it is in the object store.

    Raises:
        Conflict: There is no object store, or a copy was to be removed that would be the only one.
        StoreUnavailable: The database is busy or away.
        NoSpace: The disk is full.
    """
    if upload and not (context.config.storage or "").startswith("s3:"):
        raise Conflict("`storage` is a folder", field="data_store", why="there is no object store for a copy")
    if remove and not upload:
        raise Conflict("no `data_store` is given", field="remove", why="the copy that is removed would be the only one")
    created = context.clock.now()
    folder = context.folder / _FOLDER
    await in_thread(_make_folder, folder)
    kind = "db" if context.store.engine_name == "sqlite" else "dump"
    path = folder / f"metalmark-{created:%Y%m%dT%H%M%S%f}Z.{kind}"
    await back_up(context.database, path)
    if compress:
        path = await in_thread(_compressed, path)
    if upload:
        # Keys of blobs are lower-case.
        await context.blobs.put(f"{_FOLDER}/{path.name.lower()}", _pieces(path))
    if remove:
        await in_thread(path.unlink)
    return created


def _make_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)


def _compressed(path: Path) -> Path:
    target = path.with_name(f"{path.name}.gz")
    with (
        published(target) as stream,
        path.open("rb") as source,
        gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=6, mtime=0) as packed,
    ):
        shutil.copyfileobj(source, packed, _PIECE_BYTES)
    path.unlink()
    return target


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    stream = await in_thread(path.open, "rb")
    try:
        while piece := await in_thread(stream.read, _PIECE_BYTES):
            yield piece
    finally:
        await in_thread(stream.close)
