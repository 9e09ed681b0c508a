from __future__ import annotations

import anyio
import pytest

from metalmark.cli.async_command import run_async
from metalmark.model import NotFound


def test_a_result_is_returned() -> None:
    async def seven() -> int:
        return 7

    assert run_async(seven) == 7


def test_an_error_of_a_part_comes_out_as_itself() -> None:
    async def fail() -> None:
        raise NotFound("user", "ada")

    async def parts() -> None:
        async with anyio.create_task_group() as outer:
            async with anyio.create_task_group() as inner:
                inner.start_soon(fail)
            outer.start_soon(anyio.sleep_forever)

    with pytest.raises(NotFound, match="ada"):
        run_async(parts)


def test_a_defect_keeps_all_that_is_known_of_it() -> None:
    async def fail() -> None:
        async with anyio.create_task_group():
            raise RuntimeError("a defect")

    with pytest.raises(BaseExceptionGroup):
        run_async(fail)
