"""Fields of a job as its authors write them, with their bounds: in a job file, and in the body of a run."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

ARGUMENTS_MAX = 64
"""Most words of an entrypoint, and of a command."""
ENTRIES_MAX = 255
"""Most variables of an environment, and most paths of files."""
PRIORITY_MAX = 1000
IMAGE_MAX = 4096
"""Most characters of the name of an image."""


def _unicode(text: str) -> str:
    # JSON can spell half of a surrogate pair; no encoding of text can.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("this is not valid Unicode") from error
    return text


def _no_nul(words: tuple[str, ...]) -> tuple[str, ...]:
    # No program can be given such an argument: it ends at the NUL.
    if any("\0" in word for word in words):
        raise ValueError("an argument or path holds no NUL")
    return words


def _variables(env: dict[str, str]) -> dict[str, str]:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise ValueError("a variable has a name without '=', and neither it nor its value holds NUL")
    return env


UnicodeText = Annotated[str, Field(strict=True), AfterValidator(_unicode)]
"""Any text that can be sent on: to a runner, in an answer."""
JobWords = Annotated[tuple[UnicodeText, ...], Field(max_length=ARGUMENTS_MAX), AfterValidator(_no_nul)]
JobPaths = Annotated[tuple[UnicodeText, ...], Field(max_length=ENTRIES_MAX), AfterValidator(_no_nul)]
JobEnvironment = Annotated[dict[UnicodeText, UnicodeText], Field(max_length=ENTRIES_MAX), AfterValidator(_variables)]
JobImage = Annotated[str, Field(strict=True, min_length=1, max_length=IMAGE_MAX)]
JobPriority = Annotated[int, Field(strict=True, ge=0, le=PRIORITY_MAX)]
