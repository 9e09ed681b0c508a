"""The first administrator is made once, whoever starts, and the key that is kept is the one that is valid."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from metalmark.model import ApiKey
from metalmark.server.first_start import KEY_FILE, ensure_admin
from metalmark.store import ALL, Holder, Store, find_key_by_digest, list_users
from metalmark.system import SystemClock

pytestmark = pytest.mark.anyio


async def test_of_several_processes_that_start_at_once_one_makes_the_administrator(
    store: Store, tmp_path: Path
) -> None:
    folders = [tmp_path / str(number) for number in range(4)]
    made: dict[Path, ApiKey | None] = {}

    async def start(folder: Path) -> None:
        folder.mkdir()
        made[folder] = await ensure_admin(store, SystemClock(), folder)

    async with anyio.create_task_group() as tasks:
        for folder in folders:
            tasks.start_soon(start, folder)
    [(first, key)] = [(folder, key) for folder, key in made.items() if key is not None]
    async with store.read() as connection:
        assert (await list_users(connection, page=ALL))[1] == 1
        assert await find_key_by_digest(connection, Holder.USER, key.digest) is not None
    assert [folder for folder in folders if (folder / KEY_FILE).exists()] == [first]
    assert (first / KEY_FILE).read_text() == key.text + "\n"
    assert await ensure_admin(store, SystemClock(), tmp_path) is None
    assert not (tmp_path / KEY_FILE).exists()
