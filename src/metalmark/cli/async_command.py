"""Runs the asynchronous part of a command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from metalmark.model import MetalmarkError

T = TypeVar("T")


def run_async(function: Callable[[], Awaitable[T]]) -> T:
    """Run an asynchronous function to its end.

    Raises:
        MetalmarkError: What it failed with. Where one part's failure has ended others, the first one.
    """

    async def run() -> T | MetalmarkError:
        try:
            return await function()
        except BaseExceptionGroup as errors:
            found: BaseException = errors
            while isinstance(found, BaseExceptionGroup):
                found = found.exceptions[0]
            if isinstance(found, MetalmarkError):
                return found
            raise

    outcome = anyio.run(run)
    if isinstance(outcome, MetalmarkError):
        raise outcome
    return outcome
