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
    │   ├── NoPermission
    │   ├── Unauthenticated        no credential, or one that is not valid
    │   ├── Forbidden              known, but not permitted
    │   ├── NotFound               there is no such thing, or none that the caller may see
    │   ├── Conflict               what is there already stands against it: names the field
    │   ├── TooLarge               over a bound in bytes
    │   ├── RequestRefused         a server answered no: has the status and the number of the request
    │   └── ChannelRefused         a server does not open a runner's channel: the key, its name or the trust is wrong
    ├── TransientError             worth another try
    │   ├── RegistryUnavailable
    │   ├── ServerUnavailable      a server could not be reached, or gave no answer, also after retries
    │   ├── ChannelLost            a runner's channel is over, or could not be opened: says when to come back
    │   ├── PhaseTimeout           a phase did not end within its deadline
    │   ├── BoxLost                the VMM, the runtime or the agent went away
    │   │   └── BadBoot            a guest came up of no use; another boot may not
    │   ├── ProtocolError          a peer sent what the protocol does not allow
    │   ├── TooManyRequests        over a rate limit: says when to come back
    │   ├── ServerStopping         this process takes no new work
    │   └── StoreUnavailable       the database cannot take this now
    │       ├── StoreBusy          locked, or a queue of writes that is full
    │       ├── StoreFull          no space left
    │       └── StoreAway          not reachable, or restarting
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
        value: The value that was given; None when there was none.
        why: What is wrong with it.
        hint: What would be accepted.
    """

    def __init__(self, field: str, value: object, why: str, *, hint: str = "") -> None:
        super().__init__(f"{field} is {'missing' if value is None else repr(value)}", why=why, hint=hint)
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


class BadBoot(BoxLost):
    """A guest came up in a state in which it is of no use. Nothing ran in it yet, and another boot may go well."""


class ProtocolError(TransientError):
    """A peer sent what the protocol does not allow."""


class Unauthenticated(StableError):
    """No credential came with a request that needs one, or the one that came is not valid.

    The text never repeats the credential.
    """


class Forbidden(StableError):
    """The caller is known, and may not do this."""


class NotFound(StableError):
    """There is no such thing, or none that the caller may know of.

    Args:
        kind: What was looked for, as the glossary names it (``project``).
        name: The identifier that was given.
        hint: What to do next.
    """

    def __init__(self, kind: str, name: object, *, hint: str = "") -> None:
        super().__init__(f"there is no {kind} {str(name)!r}", hint=hint)
        self.kind = kind
        self.name = name


class Conflict(StableError):
    """What is stored already stands against the change.

    Args:
        found: What was found.
        field: The field whose value is taken or still in use; empty when it is none of the request's.
        why: Why that stops us.
        hint: What to do next.
    """

    def __init__(self, found: str, *, field: str = "", why: str = "", hint: str = "") -> None:
        super().__init__(found, why=why, hint=hint)
        self.field = field


class TooLarge(StableError):
    """Something is over a bound.

    Args:
        what: What is too large (``the request's body``).
        limit_bytes: The most that is taken.
        hint: What to do next.
    """

    def __init__(self, what: str, limit_bytes: int, *, hint: str = "") -> None:
        super().__init__(f"{what} is over {limit_bytes} bytes", hint=hint)
        self.limit_bytes = limit_bytes


class RequestRefused(StableError):
    """A server answered no.

    Args:
        found: Which request, and the status.
        why: The server's own words.
        hint: What to do next.
        status: The HTTP status, 400 or more.
        request_id: By which its operator finds the request in the logs; empty when the answer has none.
        error_code: The server's own code, where there is one.
    """

    def __init__(
        self, found: str, *, why: str, hint: str = "", status: int, request_id: str = "", error_code: str = ""
    ) -> None:
        super().__init__(found, why=why, hint=hint)
        self.status = status
        self.request_id = request_id
        self.error_code = error_code

    def __str__(self) -> str:
        marks = [f"request {self.request_id}"] if self.request_id else []
        marks += [f"code {self.error_code}"] if self.error_code else []
        return super().__str__() + (f" ({', '.join(marks)})" if marks else "")


class ServerUnavailable(TransientError):
    """A server could not be reached, broke off, or answered with a server error, also after retries."""


class ChannelRefused(StableError):
    """A server does not open the channel of a runner, and will not unless something is changed."""


class ChannelLost(TransientError):
    """The channel of a runner is over, or could not be opened.

    Args:
        found: What happened.
        why: What that means.
        hint: What to do next.
        code: The close code; 1006 when the connection ended without one.
        retry_after_s: Seconds that the server asks to wait; None when it does not.
    """

    def __init__(
        self, found: str, *, why: str = "", hint: str = "", code: int = 1006, retry_after_s: float | None = None
    ) -> None:
        super().__init__(found, why=why, hint=hint)
        self.code = code
        self.retry_after_s = retry_after_s


class TooManyRequests(TransientError):
    """A caller is over a rate limit.

    Args:
        what: What there was too much of (``sign-in attempts``).
        retry_after_s: Seconds until another try can succeed.
    """

    def __init__(self, what: str, *, retry_after_s: float) -> None:
        super().__init__(f"too many {what}", hint=f"try again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class ServerStopping(TransientError):
    """This process of the server is on its way out and takes no new work."""


class StoreUnavailable(TransientError):
    """The database cannot take this now; nothing of it was stored."""


class StoreBusy(StoreUnavailable):
    """The database is locked, or more writes wait for it than it can do in time."""


class StoreFull(StoreUnavailable):
    """There is no space left for the database."""


class StoreAway(StoreUnavailable):
    """The database cannot be reached, or broke off."""
