"""What becomes of a blob whose bytes are missing when somebody pulls it: it is not there any more, as after a scrub.

So the next push brings it again, where every client would else be told that there is nothing to send.
"""

from __future__ import annotations

import structlog

from metalmark.model import MetalmarkError
from metalmark.server.context import ServerContext
from metalmark.store import RegistryBlob, StoredBlob, mark_blob

_log = structlog.get_logger(__name__)


async def note_missing(context: ServerContext, blob: RegistryBlob) -> None:
    """Mark a blob as damaged, unless it is another by now.

    Raises:
        StoreUnavailable: The storage is away as a whole: that says nothing about this blob.
    """
    await context.blobs.answer()
    found = StoredBlob(digest=blob.digest, size_bytes=blob.size_bytes, content_id=blob.content_id, damaged=None)
    now = context.clock.now()
    try:
        marked = await context.store.write(lambda connection: mark_blob(connection, found, damaged=now))
    except MetalmarkError as error:
        # The next reader comes by here again.
        _log.warning("missing blob not marked", digest=str(blob.digest), error=str(error))
        return
    if marked:
        _log.error("bytes of a blob are missing", digest=str(blob.digest), hint="push an image again that has it")
