from __future__ import annotations

import hashlib
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from metalmark.client import (
    ConnectionSettings,
    OutputFile,
    Patience,
    ServerAddress,
    open_session,
    output_upload,
    parse_runner_key,
    upload_output,
)
from metalmark.model import ProtocolError, RequestRefused, ServerUnavailable

pytestmark = pytest.mark.anyio
KEY = "bencher_runner_0123456789abcdefghijABCDEFGHIJ"
DOCUMENT = bytes(range(256)) * 10


class Shelf:
    """A server that takes uploads."""

    def __init__(self) -> None:
        self.taken = b""
        self.complete = False
        self.requests: list[httpx.Request] = []
        self.faults: list[httpx.Response | Exception | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        if fault is not None:
            return fault
        if request.method == "PUT":
            offset = int(request.url.params["offset"])
            if offset != len(self.taken):
                return httpx.Response(409, json={"message": "offset"})
            self.taken += request.content
            if len(self.taken) == int(request.url.params["size"]):
                if hashlib.sha256(self.taken).hexdigest() != request.url.params["checksum"]:
                    self.taken = b""
                    return httpx.Response(400, json={"message": "checksum"})
                self.complete = True
        status = 200 if self.complete or request.method == "GET" else 202
        return httpx.Response(status, json={"offset": len(self.taken), "complete": self.complete})


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_upload, "PIECE_BYTES", 1000)
    monkeypatch.setattr(output_upload, "SMALL_PIECE_BYTES", 300)


async def upload(shelf: Shelf, folder: Path, *, document: bytes = DOCUMENT) -> None:
    path = folder / "output.json"
    path.write_bytes(document)
    output = OutputFile(
        job=UUID(int=1), lease=3, checksum=hashlib.sha256(DOCUMENT).hexdigest(), size_bytes=len(DOCUMENT), path=path
    )
    settings = ConnectionSettings(
        address=ServerAddress.parse("http://server.example.com"),
        credential=parse_runner_key(KEY, source="test"),
        patience=Patience(attempts=1),
    )
    async with open_session(
        settings, environment={}, notify=lambda _text: None, transport=httpx.MockTransport(shelf)
    ) as session:
        await upload_output(session, "rack-7", output)


async def test_file_arrives_in_pieces(tmp_path: Path) -> None:
    shelf = Shelf()
    await upload(shelf, tmp_path)
    assert shelf.complete
    assert shelf.taken == DOCUMENT
    first = shelf.requests[0]
    assert (first.method, first.url.path) == ("GET", f"/v0/runners/rack-7/jobs/{UUID(int=1)}/output")
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert dict(first.url.params)["lease"] == "3"
    assert [len(request.content) for request in shelf.requests[1:]] == [1000, 1000, 560]


async def test_upload_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    shelf = Shelf()
    shelf.faults = [None, None, httpx.ReadError("broke")]
    with pytest.raises(ServerUnavailable):
        await upload(shelf, tmp_path)
    assert len(shelf.taken) == 1000
    await upload(shelf, tmp_path)
    assert shelf.taken == DOCUMENT
    sent = sum(len(request.content) for request in shelf.requests)
    assert sent == len(DOCUMENT) + 1000, "the piece that was lost, and no other, was sent twice"


async def test_what_is_there_already_is_not_sent(tmp_path: Path) -> None:
    shelf = Shelf()
    shelf.taken, shelf.complete = DOCUMENT, True
    await upload(shelf, tmp_path)
    assert [request.method for request in shelf.requests] == ["GET"]


async def test_offset_of_another_connection_is_asked_for_anew(tmp_path: Path) -> None:
    shelf = Shelf()
    shelf.faults = [httpx.Response(200, json={"offset": 1000, "complete": False})]
    await upload(shelf, tmp_path)
    assert shelf.taken == DOCUMENT


async def test_bytes_that_do_not_add_up_come_to_an_end(tmp_path: Path) -> None:
    shelf = Shelf()
    with pytest.raises(ProtocolError, match="comes to no end"):
        await upload(shelf, tmp_path, document=DOCUMENT[:-1] + b"!")
    with pytest.raises(ProtocolError, match="has no byte"):
        await upload(Shelf(), tmp_path, document=DOCUMENT[:500])


async def test_proxy_that_takes_less_gets_less(tmp_path: Path) -> None:
    shelf = Shelf()
    shelf.faults = [None, httpx.Response(413, text="<html>")]
    await upload(shelf, tmp_path)
    assert shelf.taken == DOCUMENT
    assert max(len(request.content) for request in shelf.requests[2:]) == 300
    shelf = Shelf()
    shelf.faults = [None, httpx.Response(413), httpx.Response(413)]
    with pytest.raises(RequestRefused):
        await upload(shelf, tmp_path)


@pytest.mark.parametrize("status", [401, 404, 409, 413])
async def test_refusal_is_the_callers(tmp_path: Path, status: int) -> None:
    shelf = Shelf()
    shelf.faults = [httpx.Response(status, json={"message": "no"})]
    with pytest.raises(RequestRefused) as caught:
        await upload(shelf, tmp_path)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "answer", [{}, [], {"offset": -1, "complete": False}, {"offset": 10**9, "complete": False}, {"offset": 1}]
)
async def test_answer_that_says_nothing_is_an_error(tmp_path: Path, answer: object) -> None:
    shelf = Shelf()
    shelf.faults = [httpx.Response(200, json=answer)]
    with pytest.raises(ProtocolError, match="does not say how far"):
        await upload(shelf, tmp_path)


async def test_upload_that_does_not_move_is_an_error(tmp_path: Path) -> None:
    shelf = Shelf()
    shelf.faults = [None, httpx.Response(202, json={"offset": 0, "complete": False})]
    with pytest.raises(ProtocolError, match="does not get past byte 0"):
        await upload(shelf, tmp_path)
