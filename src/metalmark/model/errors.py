"""The one error tree of Metalmark.

::

    MetalmarkError                 found, why, hint
    ├── InputError                 what the user gave cannot be used: names the field and the value
    ├── StableError                the same again if nothing is changed
    │   ├── ImageError             an image that cannot be run as it is
    │   │   ├── ImageNotFound
    │   │   ├── NotAnImage
    │   │   ├── WrongPlatform
    │   │   ├── DigestMismatch
    │   │   ├── UnsupportedImage   media types, foreign layers
    │   │   └── LayerRefused       names the layer and the entry
    │   ├── RegistryDenied         the registry answered no
    │   ├── ProcessRefused         no command, unknown user, missing working directory
    │   ├── SandboxUnavailable     this machine cannot run the sandbox that was asked for
    │   ├── BoxTooSmall            memory or disk too small to boot
    │   ├── ToolMissing            a system tool is not installed, or is broken
    │   ├── NoSpace
    │   └── NoPermission
    ├── TransientError             worth another try
    │   ├── RegistryUnavailable
    │   ├── PhaseTimeout           a phase did not end within its deadline
    │   ├── BoxLost                the VMM, the runtime or the agent went away
    │   └── ProtocolError          a peer sent what the protocol does not allow
    └── Canceled                   stopped on request

Every error says what was found (``found``), why that stops us (``why``, may be empty when it is obvious) and what
to do next (``hint``). Only ``cli`` and the daemons turn an error into an exit code.
"""

from __future__ import annotations


class MetalmarkError(Exception):
    """Root of all errors that Metalmark raises on purpose.

    Args:
        found: What was found, with the names and values that matter. One sentence without a full stop.
        why: Why that stops us.
        hint: What to do next; a command where there is one.
    """

    def __init__(self, found: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(found)
        self.found = found
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.found}: {self.why}" if self.why else self.found


class InputError(MetalmarkError):
    """What the user gave cannot be used.

    Args:
        field: The flag, argument or field, as the user wrote it (``--memory``).
        value: The value that was given.
        why: What is wrong with it.
        hint: What would be accepted.
    """

    def __init__(self, field: str, value: object, why: str, *, hint: str = "") -> None:
        super().__init__(f"{field} is {value!r}", why=why, hint=hint)
        self.field = field
        self.value = value


class StableError(MetalmarkError):
    """Trying again without changing anything gives the same error."""


class TransientError(MetalmarkError):
    """Another try may succeed."""


class Canceled(MetalmarkError):
    """Work was stopped on request, by a signal or a caller."""


class ImageError(StableError):
    """An image that cannot be run as it is."""


class ImageNotFound(ImageError):
    """There is no such image, tag or digest."""


class NotAnImage(ImageError):
    """The path or the answer is not an image in any format known here."""


class WrongPlatform(ImageError):
    """The image has no variant for the platform that was asked for."""


class DigestMismatch(ImageError):
    """Content does not have the digest under which it was announced."""


class UnsupportedImage(ImageError):
    """A media type or a feature that is refused."""


class LayerRefused(ImageError):
    """A layer holds an entry that is malformed, hostile or over a bound.

    Args:
        layer: Digest of the layer as text.
        entry: Name of the entry, escaped for display; empty when the layer as a whole is meant.
        why: What is wrong with it.
        hint: What to do next.
    """

    def __init__(self, layer: str, entry: str, why: str, *, hint: str = "") -> None:
        where = f"layer {layer}, entry {entry!r}" if entry else f"layer {layer}"
        super().__init__(where, why=why, hint=hint)
        self.layer = layer
        self.entry = entry


class RegistryDenied(StableError):
    """The registry refused: bad or missing credentials, or no right to the repository."""


class ProcessRefused(StableError):
    """The process that was asked for cannot be made: no command, unknown user, missing working directory."""


class SandboxUnavailable(StableError):
    """This machine cannot run the sandbox that was asked for."""


class BoxTooSmall(StableError):
    """The memory or the disk asked for is too small to boot with."""


class ToolMissing(StableError):
    """A system tool that is needed is not installed, or fails in a way that a retry does not mend."""


class NoSpace(StableError):
    """A file system is full."""


class NoPermission(StableError):
    """The operating system refused for want of privilege."""


class RegistryUnavailable(TransientError):
    """The registry could not be reached, broke off, or answered with a server error, also after retries."""


class PhaseTimeout(TransientError):
    """A phase of a run did not end within its deadline.

    Args:
        phase: Name of the phase.
        limit_s: Its deadline in seconds.
        hint: What to do next.
    """

    def __init__(self, phase: str, limit_s: float, *, hint: str = "") -> None:
        super().__init__(f"phase {phase} did not end within {limit_s:g} s", hint=hint)
        self.phase = phase
        self.limit_s = limit_s


class BoxLost(TransientError):
    """The VMM, the container runtime or the agent ended before the run did."""


class ProtocolError(TransientError):
    """A peer sent what the protocol does not allow."""
