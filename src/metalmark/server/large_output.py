"""Uploaded outputs that are larger than a message, checked in a process of their own.

Parsing hundreds of MiB takes seconds in which this process would serve nobody, and memory that it would keep.
The process is ``python -m metalmark.server.large_output STORAGE KEY LIMIT``; its status is the answer.
"""

from __future__ import annotations

import sys

import anyio
import structlog

from metalmark.model import NotFound, PhaseTimeout, StoreAway, StoreUnavailable, TooLarge
from metalmark.store import Blobs
from metalmark.system import run
from metalmark.wire import JobOutput

_READABLE, _UNREADABLE, _AWAY = 0, 3, 4
_TIMEOUT_S = 300.0
_log = structlog.get_logger(__name__)


async def large_output_is_readable(storage: str, key: str, *, limit_bytes: int, timeout_s: float = _TIMEOUT_S) -> bool:
    """Whether a stored output is there, and is a document of results.

    Args:
        storage: The folder or URL of the blobs.
        key: Where it is among them.
        limit_bytes: The most that may be uploaded; what is larger is not read.
        timeout_s: The longest that this may take; an output that takes longer counts as unreadable.

    Raises:
        StoreAway: The storage cannot be reached.
    """
    # -P: no module of the folder that the server was started in is imported.
    command = [sys.executable, "-P", "-m", __name__, storage, key, str(limit_bytes)]
    try:
        ended = await run(command, timeout_s=timeout_s)
    except PhaseTimeout:
        _log.warning("output not read in time", key=key, timeout_s=timeout_s)
        return False
    if ended.returncode == _AWAY:
        raise StoreAway("the output cannot be read", why="the storage is away")
    if ended.returncode not in (_READABLE, _UNREADABLE):
        _log.warning("output not read", key=key, status=ended.returncode, error=ended.error_text)
    return ended.returncode == _READABLE


async def _judge(storage: str, key: str, limit_bytes: int) -> int:
    try:
        JobOutput.model_validate_json(await Blobs.open(storage).get(key, limit_bytes=limit_bytes))
    except StoreUnavailable:
        return _AWAY
    except (NotFound, TooLarge, ValueError):
        return _UNREADABLE
    return _READABLE


if __name__ == "__main__":
    sys.exit(anyio.run(_judge, sys.argv[1], sys.argv[2], int(sys.argv[3])))
