from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import anyio
import pytest

from metalmark.model import StoreAway
from metalmark.server.readiness import KEPT_S, Readiness
from metalmark.store import Blobs
from metalmark.testing.fake_clock import FakeClock

pytestmark = pytest.mark.anyio


async def test_an_answer_counts_for_some_seconds(tmp_path: Path) -> None:
    blobs, clock = Blobs.open(tmp_path / "blobs"), FakeClock()
    await blobs.check()
    readiness = Readiness(blobs, clock)
    await readiness.check()
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")
    await readiness.check()
    clock.advance(KEPT_S)
    for _ in range(2):
        with pytest.raises(StoreAway, match="empty"):
            await readiness.check()
    (tmp_path / "elsewhere").rename(tmp_path / "blobs")
    with pytest.raises(StoreAway, match="empty"):
        await readiness.check()
    clock.advance(KEPT_S)
    await readiness.check()


async def test_many_who_ask_at_once_are_one_question_and_silence_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []

    async def silent() -> None:
        asked.append(None)
        await anyio.sleep_forever()

    monkeypatch.setattr("metalmark.server.readiness.WITHIN_S", 0.05)
    blobs = Blobs.in_memory()
    told: list[StoreAway] = []
    readiness = Readiness(blobs, FakeClock())

    async def ask() -> None:
        try:
            await readiness.check()
        except StoreAway as error:
            told.append(error)

    with patch.object(blobs, "answer", silent):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask)
    assert (len(asked), len(told)) == (1, 5)
    assert "does not answer" in str(told[0])
