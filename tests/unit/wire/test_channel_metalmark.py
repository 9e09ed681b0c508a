"""The sub-protocol of our own runners."""

from __future__ import annotations

import base64
import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import Phase, ProtocolError
from metalmark.wire import (
    CHUNK_MAX_BYTES,
    CHUNKS_MAX,
    FRAME_MAX_BYTES,
    Began,
    Broke,
    HeldLease,
    LiveOutput,
    OutputChunk,
    PhaseTold,
    ProvedCapabilities,
    RefusalReason,
    Refused,
    RunnerHello,
    StillAlive,
    Succeeded,
    Taken,
    Uploaded,
    Wanting,
    channel_text,
    read_from_runner,
    read_from_server,
)

JOB = UUID("0197c3d4-0000-7000-8000-000000000001")


@pytest.mark.parametrize(
    "message",
    [
        RunnerHello(
            id=0,
            version="1.2",
            process="p",
            boot="b",
            capabilities=ProvedCapabilities(os="linux", architecture="x86_64", sandboxes=("qemu", "none"), vcpus=4),
            facts={"cpu": {"model": "x", "mhz": [1, 2.5]}},
            holding=(HeldLease(job=JOB, lease=3),),
        ),
        Wanting(id=1, slots=2, received=0, specs=(JOB,)),
        Began(id=2, job=JOB, lease=1),
        PhaseTold(id=3, job=JOB, lease=1, phase=Phase.PULL),
        StillAlive(id=4, jobs=(HeldLease(job=JOB, lease=1),)),
        Succeeded(id=5, job=JOB, lease=1, uploaded=Uploaded(checksum="ab" * 32, size_bytes=9)),
        Broke(id=6, job=JOB, lease=1, error="no", infrastructure=True),
    ],
)
def test_what_a_runner_says_is_read_as_it_was_meant(message: Wanting) -> None:
    assert read_from_runner(channel_text(message)) == message


@pytest.mark.parametrize(
    "message", [Taken(re=1, lost=(HeldLease(job=JOB, lease=2),)), Refused(re=None, reason=RefusalReason.INVALID)]
)
def test_what_a_server_says_is_read_as_it_was_meant(message: Taken) -> None:
    assert read_from_server(channel_text(message)) == message


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=4))
def test_output_keeps_every_byte(pieces: list[bytes]) -> None:
    chunks = tuple(OutputChunk.of(piece, iteration=0, stream="stdout") for piece in pieces)
    message = LiveOutput(id=1, job=JOB, lease=1, offset=7, chunks=chunks)
    read = read_from_runner(channel_text(message))
    assert isinstance(read, LiveOutput)
    assert [chunk.data for chunk in read.chunks] == pieces


def output(data: str, count: int = 1) -> str:
    chunk = {"iteration": 0, "stream": "stdout", "data": data}
    return json.dumps({"event": "output", "id": 1, "job": str(JOB), "lease": 1, "offset": 0, "chunks": [chunk] * count})


def test_the_largest_message_of_output_fits_a_frame() -> None:
    text = output(base64.b64encode(b"x" * CHUNK_MAX_BYTES).decode(), CHUNKS_MAX)
    assert len(text) < FRAME_MAX_BYTES
    read_from_runner(text)


@pytest.mark.parametrize(
    "text",
    [
        output("not base64"),
        output(""),
        output("QQ=="[:3]),
        output("QQ==\n"),
        output("QQ==", CHUNKS_MAX + 1),
        output("", 0),
        output(base64.b64encode(b"x" * (CHUNK_MAX_BYTES + 3)).decode()),
        '{"event":"ready","id":1,"slots":65,"received":0}',
        '{"event":"ready","id":1,"slots":-1,"received":0}',
        '{"event":"ready","id":-1,"slots":1,"received":0}',
        '{"event":"ready","slots":1,"received":0}',
        f'{{"event":"running","id":1,"job":"{JOB}"}}',
        f'{{"event":"running","id":1,"job":"{JOB}","lease":0}}',
        f'{{"event":"running","id":1,"job":"{JOB}","lease":"1"}}',
        f'{{"event":"phase","id":1,"job":"{JOB}","lease":1,"phase":"nap"}}',
        '{"event":"welcome","re":1}',
    ],
)
def test_what_is_out_of_bounds_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        read_from_runner(text)
