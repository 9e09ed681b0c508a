"""The messages, and that the agent's sources and the reference say the same of them."""

from __future__ import annotations

import re
from enum import IntEnum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark import wire
from metalmark.model import ProtocolError
from metalmark.wire import (
    Clock,
    Done,
    DoneTag,
    Ending,
    Exec,
    ExecTag,
    Exited,
    ExitTag,
    Fault,
    Fields,
    Get,
    GetTag,
    Hello,
    HelloTag,
    Kind,
    Put,
    PutTag,
    Ready,
    Setup,
    SetupTag,
    SignalTag,
    credit_of,
    pack,
    signal_frame,
)

ROOT = Path(__file__).parents[3]
PREFIXES: dict[type[IntEnum], str] = {
    Kind: "KIND",
    SetupTag: "SETUP",
    ExecTag: "EXEC",
    ExitTag: "EXIT",
    Ending: "ENDING",
    SignalTag: "SIGNAL",
    GetTag: "GET",
    PutTag: "PUT",
    wire.CreditTag: "CREDIT",
    DoneTag: "DONE",
    HelloTag: "HELLO",
    wire.ReadyTag: "READY",
    wire.ClockTag: "CLOCK",
    wire.FaultTag: "FAULT",
}
BOUNDS = ("PROTOCOL", "HEADER_BYTES", "MAX_PAYLOAD_BYTES", "INPUT_WINDOW_BYTES")


def test_the_agent_is_built_with_the_same_numbers() -> None:
    source = (ROOT / "guest/wire.h").read_text()
    found = {
        name: eval(value)  # products of numbers in our own source
        for name, value in re.findall(r"\b([A-Z][A-Z_]+) = ([0-9xA-F* ]+)", source)
    }
    expected = {f"{prefix}_{member.name}": member.value for kind, prefix in PREFIXES.items() for member in kind}
    expected |= {name: getattr(wire, name) for name in BOUNDS}
    assert found == expected


@pytest.mark.parametrize("kind", PREFIXES, ids=lambda kind: kind.__name__)
def test_the_reference_names_every_value(kind: type[IntEnum]) -> None:
    text = (ROOT / "docs/reference/guest-protocol.md").read_text()
    section = re.split(r"^### ", text, flags=re.MULTILINE)
    (table,) = [part for part in section if part.startswith(f"{PREFIXES[kind]}\n")]
    rows = re.findall(r"^\| `?(0x[0-9a-f]+|\d+)`? \| `([A-Z_]+)`", table, flags=re.MULTILINE)
    assert {name: int(number, 0) for number, name in rows} == {member.name: member.value for member in kind}


def test_the_reference_states_the_bounds() -> None:
    text = (ROOT / "docs/reference/guest-protocol.md").read_text()
    for name in BOUNDS:
        assert re.search(rf"`{name}` \| {getattr(wire, name)} ", text), name


def test_requests_carry_any_bytes_the_user_has() -> None:
    odd = b"caf\xe9".decode("utf-8", "surrogateescape")
    frame = Exec(argv=("p", odd), env=(f"A={odd}",), workdir=odd, user="u", stdin=True, stream_bytes=5).frame(9)
    fields = Fields(frame.payload)
    assert (frame.kind, frame.stream) == (Kind.EXEC, 9)
    assert fields.all(ExecTag.ARG) == (b"p", b"caf\xe9")
    assert (fields.raw(ExecTag.WORKDIR), fields.all(ExecTag.ENV)) == (b"caf\xe9", (b"A=caf\xe9",))
    assert [fields.integer(tag) for tag in (ExecTag.STDIN, ExecTag.HOLD, ExecTag.STREAM_BYTES)] == [1, 0, 5]
    get = Fields(Get(patterns=(odd, "b"), max_bytes=1, max_files=2).frame(3).payload)
    assert get.all(GetTag.PATTERN) == (b"caf\xe9", b"b")
    assert Fields(Put(folder=odd).frame(1).payload).raw(PutTag.FOLDER) == b"caf\xe9"
    assert Fields(signal_frame(4, 15).payload).integer(SignalTag.NUMBER) == 15


def test_setup_repeats_cgroup_descriptors() -> None:
    frame = Setup(hostname="h", seed=b"\0\1", cgroup_fds=(4, 5)).frame()
    fields = Fields(frame.payload)
    assert (frame.kind, frame.stream) == (Kind.SETUP, 0)
    assert len(fields.all(SetupTag.CGROUP_FD)) == 2
    assert fields.raw(SetupTag.SEED) == b"\0\1"


def test_answers_are_read_back() -> None:
    exited = Exited.parse(
        pack(
            [
                (ExitTag.ENDING, 1),
                (ExitTag.CODE, 9),
                (ExitTag.MESSAGE, b"m\xff"),
                (ExitTag.LEFT_KILLED, 3),
                (99, b"new"),
            ]
        )
    )
    assert (exited.ending, exited.code, exited.message, exited.left_killed) == (Ending.SIGNALED, 9, "m�", 3)
    done = Done.parse(pack([(DoneTag.TRUNCATED, 1), (DoneTag.MISSING, b"a"), (DoneTag.MISSING, b"\xff")]))
    assert (done.truncated, done.missing) == (True, ("a", "\udcff"))
    assert Hello.parse(pack([(HelloTag.PROTOCOL, 1), (HelloTag.KERNEL, b"6.1")])).kernel == "6.1"
    assert credit_of(pack([(1, 77)])) == 77


def test_another_protocol_and_unknown_endings_are_refused() -> None:
    with pytest.raises(ProtocolError, match="protocol 2"):
        Hello.parse(pack([(HelloTag.PROTOCOL, 2)]))
    with pytest.raises(ProtocolError, match="ending 77"):
        Exited.parse(pack([(ExitTag.ENDING, 77)]))


@pytest.mark.parametrize(
    ("ending", "code", "good"),
    [
        (0, 255, True),
        (0, 256, False),
        (0, 2**64 - 1, False),
        (1, 64, True),
        (1, 65, False),
        (7, 5, True),
        (7, 2**32, False),
    ],
)
def test_codes_that_no_process_ends_with_are_refused(ending: int, code: int, good: bool) -> None:
    payload = pack([(ExitTag.ENDING, ending), (ExitTag.CODE, code)])
    if good:
        assert Exited.parse(payload).code == code
        return
    with pytest.raises(ProtocolError, match=str(code)):
        Exited.parse(payload)


@given(payload=st.binary(max_size=80))
def test_noise_gives_a_message_or_a_protocol_error(payload: bytes) -> None:
    for parse in (Exited.parse, Done.parse, Hello.parse, Ready.parse, Clock.parse, Fault.parse, credit_of):
        try:
            parse(payload)
        except ProtocolError:
            continue
