"""What a job prints, as it comes from the server: onto the streams that it was printed to."""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from metalmark.cli.view import write_bytes, write_out
from metalmark.model import ProtocolError, printable

if TYPE_CHECKING:
    from codecs import IncrementalDecoder

    from metalmark.client import ServerEvent


class JobLog:
    """Takes the events of a job's output.

    On a terminal control characters are shown and not obeyed, for the job may be somebody else's; a file or a pipe
    gets the bytes as they are.

    Args:
        as_json: Print each event as one JSON object a line instead.
        say: Is told what happens beside the output, one line each.
        stdout: Gets what the job printed to its standard output, where that is not ours.
    """

    def __init__(self, *, as_json: bool, say: Callable[[str], None], stdout: TextIO | None = None) -> None:
        self._as_json = as_json
        self._tell = say
        self._stdout = stdout
        self._iteration = 1
        self._phase: tuple[int, str] = (0, "")
        self._within_line = False
        self.status = ""
        """The job's status, as far as the events told."""
        self._decoders: dict[str, IncrementalDecoder] = {}

    def take(self, event: ServerEvent) -> bool:
        """Show an event, and tell whether it was the last.

        Raises:
            ProtocolError: It is not an event of a job's output.
        """
        try:
            found = json.loads(event.data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ProtocolError(f"an event {event.kind!r} of the job's output holds no object")
        if self._as_json:
            write_out(json.dumps({"event": event.kind, **found}) + "\n")
        elif event.kind == "output":
            self._output(found)
        elif event.kind == "restart":
            self._iteration = 1
            self._say("the job has begun anew; what it printed before does not count")
        elif event.kind == "phase":
            self._entered(str(found.get("phase")), found.get("iteration"))
        elif event.kind == "pending":
            self._waits(found)
        elif event.kind == "end":
            self._say(f"the job is {found.get('status')}")
        if event.kind in ("phase", "end"):
            self.status = str(found.get("status"))
        return event.kind == "end"

    def show(self, name: str, content: bytes) -> None:
        """Show what the job printed.

        Args:
            name: Of the stream that it was printed to: ``stdout`` or ``stderr``.
            content: It, or a piece of it.
        """
        stream = sys.stderr if name == "stderr" else self._stdout or sys.stdout
        if stream.isatty():
            decoder = self._decoders.setdefault(name, codecs.getincrementaldecoder("utf-8")(errors="replace"))
            content = _shown(decoder.decode(content)).encode(stream.encoding or "utf-8", errors="replace")
        write_bytes(stream, content)
        if content and stream.isatty():
            self._within_line = not content.endswith(b"\n")

    def close(self) -> None:
        """End a line that the job left unfinished on a terminal."""
        if self._within_line:
            self._within_line = False
            write_bytes(sys.stderr, b"\n")

    def _say(self, line: str) -> None:
        self.close()
        self._tell(line)

    def _entered(self, phase: str, iteration: object) -> None:
        if isinstance(iteration, int) and iteration:
            self._head(iteration)
        # A stream that was resumed begins with the phase that the job is in.
        if (self._iteration, phase) != self._phase:
            self._phase = (self._iteration, phase)
            self._say(f"phase {phase}")

    def _head(self, iteration: int) -> None:
        if iteration != self._iteration:
            self._iteration = iteration
            self._say(f"iteration {iteration}")

    def _waits(self, found: dict[str, object]) -> None:
        position = found.get("position")
        place = f"number {position} in the queue: " if isinstance(position, int) else ""
        self._say(f"pending, {place}{found.get('text')}")

    def _output(self, found: dict[str, object]) -> None:
        content = _content(found)
        iteration = found.get("iteration")
        if isinstance(iteration, int):
            self._head(iteration)
        self.show("stderr" if found.get("stream") == "stderr" else "stdout", content)


def _content(found: dict[str, object]) -> bytes:
    text, encoded = found.get("text"), found.get("base64")
    if isinstance(text, str):
        return text.encode("utf-8", errors="surrogatepass")
    if isinstance(encoded, str):
        try:
            return base64.b64decode(encoded, validate=True)
        except binascii.Error:
            pass
    raise ProtocolError("a piece of the job's output holds neither text nor base64")


def _shown(text: str) -> str:
    # A tab moves only forward; a carriage return could write over what was printed before.
    return "\t".join(printable(part) for part in text.replace("\r\n", "\n").split("\t"))
