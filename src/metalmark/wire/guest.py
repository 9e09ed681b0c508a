"""The messages between host and guest agent (protocol 1). ``docs/reference/guest-protocol.md`` is the prose.

Host to agent: SETUP once, then any number of EXEC, GET and PUT, each on a stream number of the host's choice that
is never used again; INPUT and SIGNAL to a running stream; CLOCK at any time; POWEROFF last.
Agent to host: HELLO first, unasked; READY or FAULT for SETUP; STARTED, STDOUT, STDERR and EXITED for EXEC; DATA and
DONE for GET; CREDIT and DONE for PUT; FAULT on a stream instead of its closing message when the request cannot be
carried out at all. EXITED, DONE and FAULT close a stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from metalmark.model import ProtocolError
from metalmark.wire.fields import Fields, pack
from metalmark.wire.frames import Frame

PROTOCOL = 1
INPUT_WINDOW_BYTES = 64 * 1024
"""Bytes of INPUT that the host may have under way on a stream beyond what CREDIT has given back."""


class Kind(IntEnum):
    """Type byte of a frame."""

    SETUP = 0x01
    EXEC = 0x02
    INPUT = 0x03
    """Bytes for stdin or a PUT; an empty payload is the end."""
    SIGNAL = 0x04
    """Goes to every process of the stream's command; SIGKILL also ends a GET or PUT. See `SignalTag`."""
    GET = 0x05
    PUT = 0x06
    CLOCK = 0x07
    POWEROFF = 0x08

    HELLO = 0x81
    READY = 0x82
    STARTED = 0x83
    STDOUT = 0x84
    STDERR = 0x85
    EXITED = 0x86
    DATA = 0x87
    DONE = 0x88
    FAULT = 0x89
    CREDIT = 0x8A
    CLOCK_IS = 0x8B


class SetupTag(IntEnum):
    """Fields of SETUP."""

    ROOT = 1
    """Block device of the base image (``/dev/vda``); empty: the agent's own root is the root (container, none)."""
    ROOT_TYPE = 2
    """``squashfs`` or ``ext4``; ext4 is mounted writable and used as it is."""
    SCRATCH = 3
    """Block device of the ext4 scratch that is laid over a squashfs base; empty: none."""
    HOSTNAME = 4
    REALTIME_NS = 5
    """The host's wall clock; 0: leave the guest's."""
    SEED = 6
    """Bytes for the guest's random pool, credited as entropy."""
    MEMORY_BYTES = 7
    """Most memory for all commands together (cgroup ``memory.max``); 0: what the machine has less a reserve."""
    PIDS = 8
    ADDRESS = 9
    """``address/prefix`` of the first network interface; empty: loopback only."""
    GATEWAY = 10
    NAMESERVER = 11
    CGROUP_FD = 12
    """Repeated: an inherited descriptor of a ``cgroup.procs`` file, into which each command's first process writes
    itself; the host then accounts. Absent: the agent makes a cgroup of its own (v2)."""


class ExecTag(IntEnum):
    """Fields of EXEC."""

    ARG = 1
    ENV = 2
    WORKDIR = 3
    USER = 4
    STDIN = 5
    """1: INPUT frames follow; 0: stdin is /dev/null."""
    HOLD = 6
    """1: hold output in memory until the command has ended (``--live off``)."""
    STREAM_BYTES = 7
    """Most bytes to send of each of stdout and stderr; the rest is read and dropped."""
    GRACE_MS = 8
    """After the command's first process has ended, how long its descendants may live before they are killed."""


class ExitTag(IntEnum):
    """Fields of EXITED. Times are the guest's CLOCK_MONOTONIC."""

    ENDING = 1
    """A value of `Ending`."""
    CODE = 2
    """Exit code, or signal number, or errno for the endings that never ran."""
    STARTED_NS = 3
    ENDED_NS = 4
    USER_US = 5
    SYSTEM_US = 6
    MEMORY_PEAK_BYTES = 7
    STDOUT_BYTES = 8
    """Bytes that the command wrote, also those that were dropped."""
    STDERR_BYTES = 9
    MESSAGE = 10
    """For the endings that never ran: which user, folder or file."""
    LEFT_KILLED = 11
    """Descendants still alive after the grace time, and killed."""


class Ending(IntEnum):
    """How a command ended, as the agent saw it."""

    EXITED = 0
    SIGNALED = 1
    OUT_OF_MEMORY = 2
    NOT_FOUND = 3
    NOT_EXECUTABLE = 4
    UNKNOWN_USER = 5
    NO_WORKDIR = 6
    FAILED = 7
    """The agent could not start it for another reason; CODE is the errno."""


_MOST_CODES = {Ending.EXITED: 255, Ending.SIGNALED: 64, Ending.OUT_OF_MEMORY: 64}
_MOST_ERRNO = 4095
"""MAX_ERRNO of the kernel."""


class GetTag(IntEnum):
    """Fields of GET: answer with a tar stream of DATA frames, then DONE."""

    PATTERN = 1
    """Repeated: a path or glob; relative ones start at WORKDIR."""
    WORKDIR = 2
    MAX_BYTES = 3
    MAX_FILES = 4


class PutTag(IntEnum):
    """Fields of PUT: INPUT frames bring a tar stream that is unpacked under FOLDER."""

    FOLDER = 1


class DoneTag(IntEnum):
    """Fields of DONE."""

    FILES = 1
    BYTES = 2
    TRUNCATED = 3
    """1: a bound was met and something left out."""
    MISSING = 4
    """Repeated: a pattern that matched no regular file."""


class HelloTag(IntEnum):
    """Fields of HELLO."""

    PROTOCOL = 1
    ARCHITECTURE = 2
    KERNEL = 3
    MONOTONIC_NS = 4
    """Guest clock when the agent's first instruction ran."""
    CPUS = 5
    MEMORY_BYTES = 6
    AGENT = 7
    """Version text of the agent."""
    TIMER_HZ = 8
    """Rate of the timer interrupts' counter, where the guest's kernel had to measure it at its start; else 0."""


class ReadyTag(IntEnum):
    """Fields of READY."""

    MONOTONIC_NS = 1
    MEMORY_MAX_BYTES = 2
    """The bound that commands got."""


class SignalTag(IntEnum):
    """Fields of SIGNAL."""

    NUMBER = 1


class CreditTag(IntEnum):
    """Fields of CREDIT: how much of what INPUT brought has been taken."""

    BYTES = 1


class ClockTag(IntEnum):
    """Fields of CLOCK_IS."""

    MONOTONIC_NS = 1
    REALTIME_NS = 2


class FaultTag(IntEnum):
    """Fields of FAULT."""

    CODE = 1
    """An errno, or 0."""
    MESSAGE = 2


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the agent needs to make the root and the limits. See `SetupTag`."""

    root: str = ""
    root_type: str = ""
    scratch: str = ""
    hostname: str = "metalmark"
    realtime_ns: int = 0
    seed: bytes = b""
    memory_bytes: int = 0
    pids: int = 0
    address: str = ""
    gateway: str = ""
    nameserver: str = ""
    cgroup_fds: tuple[int, ...] = ()

    def frame(self) -> Frame:
        """Return the frame of this request."""
        tag = SetupTag
        fields: list[tuple[int, bytes | int]] = [
            (tag.ROOT, self.root.encode()),
            (tag.ROOT_TYPE, self.root_type.encode()),
            (tag.SCRATCH, self.scratch.encode()),
            (tag.HOSTNAME, self.hostname.encode()),
            (tag.REALTIME_NS, self.realtime_ns),
            (tag.SEED, self.seed),
            (tag.MEMORY_BYTES, self.memory_bytes),
            (tag.PIDS, self.pids),
            (tag.ADDRESS, self.address.encode()),
            (tag.GATEWAY, self.gateway.encode()),
            (tag.NAMESERVER, self.nameserver.encode()),
        ]
        fields += [(tag.CGROUP_FD, fd) for fd in self.cgroup_fds]
        return Frame(kind=Kind.SETUP, stream=0, payload=pack(fields))


@dataclass(frozen=True, kw_only=True)
class Exec:
    """A command to run. See `ExecTag`."""

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    workdir: str = "/"
    user: str = ""
    stdin: bool = False
    hold: bool = False
    stream_bytes: int
    grace_ms: int = 1000

    def frame(self, stream: int) -> Frame:
        """Return the frame of this request on a stream."""
        tag = ExecTag
        fields: list[tuple[int, bytes | int]] = [(tag.ARG, _text(arg)) for arg in self.argv]
        fields += [(tag.ENV, _text(entry)) for entry in self.env]
        fields += [
            (tag.WORKDIR, _text(self.workdir)),
            (tag.USER, _text(self.user)),
            (tag.STDIN, int(self.stdin)),
            (tag.HOLD, int(self.hold)),
            (tag.STREAM_BYTES, self.stream_bytes),
            (tag.GRACE_MS, self.grace_ms),
        ]
        return Frame(kind=Kind.EXEC, stream=stream, payload=pack(fields))


@dataclass(frozen=True, kw_only=True)
class Exited:
    """How a command ended. See `ExitTag`."""

    ending: Ending
    code: int
    started_ns: int
    ended_ns: int
    user_us: int
    system_us: int
    memory_peak_bytes: int
    stdout_bytes: int
    stderr_bytes: int
    message: str
    left_killed: int

    @classmethod
    def parse(cls, payload: bytes) -> Exited:
        """Read the payload of an EXITED frame.

        Raises:
            ProtocolError: Malformed, an ending that this version does not know, or a code that no process ends with.
        """
        fields, tag = Fields(payload), ExitTag
        ending, code = _ending(fields.integer(tag.ENDING, Ending.FAILED)), fields.integer(tag.CODE)
        if code > _MOST_CODES.get(ending, _MOST_ERRNO):
            raise ProtocolError(f"the guest agent reports ending {ending.name.lower()} with code {code}")
        return cls(
            ending=ending,
            code=code,
            started_ns=fields.integer(tag.STARTED_NS),
            ended_ns=fields.integer(tag.ENDED_NS),
            user_us=fields.integer(tag.USER_US),
            system_us=fields.integer(tag.SYSTEM_US),
            memory_peak_bytes=fields.integer(tag.MEMORY_PEAK_BYTES),
            stdout_bytes=fields.integer(tag.STDOUT_BYTES),
            stderr_bytes=fields.integer(tag.STDERR_BYTES),
            message=fields.text(tag.MESSAGE),
            left_killed=fields.integer(tag.LEFT_KILLED),
        )


@dataclass(frozen=True, kw_only=True)
class Get:
    """Files to fetch as a tar stream. See `GetTag`."""

    patterns: tuple[str, ...]
    workdir: str = "/"
    max_bytes: int
    max_files: int

    def frame(self, stream: int) -> Frame:
        """Return the frame of this request on a stream."""
        tag = GetTag
        fields: list[tuple[int, bytes | int]] = [(tag.PATTERN, _text(pattern)) for pattern in self.patterns]
        fields += [(tag.WORKDIR, _text(self.workdir)), (tag.MAX_BYTES, self.max_bytes), (tag.MAX_FILES, self.max_files)]
        return Frame(kind=Kind.GET, stream=stream, payload=pack(fields))


@dataclass(frozen=True, kw_only=True)
class Put:
    """A folder to unpack a tar stream into. See `PutTag`."""

    folder: str

    def frame(self, stream: int) -> Frame:
        """Return the frame of this request on a stream."""
        return Frame(kind=Kind.PUT, stream=stream, payload=pack([(PutTag.FOLDER, _text(self.folder))]))


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a transfer ended. See `DoneTag`."""

    files: int
    transferred_bytes: int
    truncated: bool
    missing: tuple[str, ...]

    @classmethod
    def parse(cls, payload: bytes) -> Done:
        """Read the payload of a DONE frame.

        Raises:
            ProtocolError: Malformed.
        """
        fields, tag = Fields(payload), DoneTag
        return cls(
            files=fields.integer(tag.FILES),
            transferred_bytes=fields.integer(tag.BYTES),
            truncated=bool(fields.integer(tag.TRUNCATED)),
            missing=tuple(name.decode("utf-8", "surrogateescape") for name in fields.all(tag.MISSING)),
        )


@dataclass(frozen=True, kw_only=True)
class Hello:
    """What the agent says of its machine. See `HelloTag`."""

    protocol: int
    architecture: str
    kernel: str
    monotonic_ns: int
    cpus: int
    memory_bytes: int
    agent: str
    timer_hz: int = 0

    @classmethod
    def parse(cls, payload: bytes) -> Hello:
        """Read the payload of a HELLO frame.

        Raises:
            ProtocolError: Malformed, or another protocol than ours.
        """
        fields, tag = Fields(payload), HelloTag
        protocol = fields.integer(tag.PROTOCOL)
        if protocol != PROTOCOL:
            raise ProtocolError(f"the guest agent speaks protocol {protocol}", why=f"this program speaks {PROTOCOL}")
        return cls(
            protocol=protocol,
            architecture=fields.text(tag.ARCHITECTURE),
            kernel=fields.text(tag.KERNEL),
            monotonic_ns=fields.integer(tag.MONOTONIC_NS),
            cpus=fields.integer(tag.CPUS),
            memory_bytes=fields.integer(tag.MEMORY_BYTES),
            agent=fields.text(tag.AGENT),
            timer_hz=fields.integer(tag.TIMER_HZ),
        )


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The root is made and commands can run. See `ReadyTag`."""

    monotonic_ns: int
    memory_max_bytes: int

    @classmethod
    def parse(cls, payload: bytes) -> Ready:
        """Read the payload of a READY frame.

        Raises:
            ProtocolError: Malformed.
        """
        fields = Fields(payload)
        return cls(
            monotonic_ns=fields.integer(ReadyTag.MONOTONIC_NS),
            memory_max_bytes=fields.integer(ReadyTag.MEMORY_MAX_BYTES),
        )


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The guest's clocks at the moment of the answer. See `ClockTag`."""

    monotonic_ns: int
    realtime_ns: int

    @classmethod
    def parse(cls, payload: bytes) -> Clock:
        """Read the payload of a CLOCK_IS frame.

        Raises:
            ProtocolError: Malformed.
        """
        fields = Fields(payload)
        return cls(monotonic_ns=fields.integer(ClockTag.MONOTONIC_NS), realtime_ns=fields.integer(ClockTag.REALTIME_NS))


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A request that could not be carried out. See `FaultTag`."""

    code: int
    message: str

    @classmethod
    def parse(cls, payload: bytes) -> Fault:
        """Read the payload of a FAULT frame.

        Raises:
            ProtocolError: Malformed.
        """
        fields = Fields(payload)
        return cls(code=fields.integer(FaultTag.CODE), message=fields.text(FaultTag.MESSAGE))


def signal_frame(stream: int, signal: int) -> Frame:
    """Return the frame that sends a signal to every process of a stream's command."""
    return Frame(kind=Kind.SIGNAL, stream=stream, payload=pack([(SignalTag.NUMBER, signal)]))


def credit_of(payload: bytes) -> int:
    """Return the bytes that a CREDIT frame gives back.

    Raises:
        ProtocolError: Malformed.
    """
    return Fields(payload).integer(CreditTag.BYTES)


def _ending(value: int) -> Ending:
    try:
        return Ending(value)
    except ValueError:
        raise ProtocolError(f"the guest agent reports ending {value}", why="this program does not know it") from None


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")
