"""Output of jobs: uploads that are cut off and go on, and streams that are followed."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from tests.integration.server.channel.conftest import Rack
from tests.integration.server.channel.test_own import OwnRunner, greeted

from metalmark.model import JobEvent
from metalmark.server.output_sweep import OutputSweep
from metalmark.testing.public_runner import PublicRunner

DOCUMENT = json.dumps({"results": [{"exit_code": 0, "stdout": "x" * 3_000_000}]}).encode()


@dataclass
class Uploader:
    """A runner with a job, and the request that uploads its output."""

    rack: Rack
    runner: PublicRunner
    job: str
    lease: int

    def query(self, document: bytes = DOCUMENT, **other: object) -> dict[str, str]:
        checksum = hashlib.sha256(document).hexdigest()
        given = {"lease": self.lease, "checksum": checksum, "size": len(document), **other}
        return {name: str(value) for name, value in given.items()}

    @property
    def path(self) -> str:
        return f"/v0/runners/{self.runner.runner}/jobs/{self.job}/output"

    def put(self, content: bytes, *, key: str = "", document: bytes = DOCUMENT, **other: object) -> httpx.Response:
        with self.rack.server.client(key or self.runner.key) as client:
            return client.put(self.path, params=self.query(document, **other), content=content)

    def status(self, document: bytes = DOCUMENT) -> Any:
        with self.rack.server.client(self.runner.key) as client:
            return client.get(self.path, params=self.query(document)).json()

    def cut_off(self, sent: bytes) -> None:
        """Begin to upload everything, and lose the connection after so many bytes."""
        place = urlsplit(self.rack.server.url)
        head = (
            f"PUT {self.path}?{urlencode(self.query())} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {self.runner.key}\r\nContent-Length: {len(DOCUMENT)}\r\n\r\n"
        )
        with socket.create_connection((place.hostname or "", place.port or 0)) as connection:
            connection.sendall(head.encode() + sent)


@pytest.fixture
def uploader(racks: Rack) -> Uploader:
    spec = racks.own_spec()
    runner = racks.runner(spec=spec)
    job = racks.submit(spec)
    runner.take()
    return Uploader(racks, runner, job, 1)


def test_an_upload_arrives_whole_and_twice_is_once(uploader: Uploader) -> None:
    answer = uploader.put(DOCUMENT)
    assert (answer.status_code, answer.json()) == (200, {"offset": len(DOCUMENT), "complete": True})
    assert uploader.put(DOCUMENT).json()["complete"]
    assert uploader.status() == {"offset": len(DOCUMENT), "complete": True}
    assert uploader.rack.status(uploader.job) == "running", "the job ends with the channel's message"


def test_an_upload_goes_on_where_it_was_cut_off(uploader: Uploader) -> None:
    first, second = DOCUMENT[:1_000_000], DOCUMENT[1_000_000:2_000_000]
    answer = uploader.put(first)
    assert (answer.status_code, answer.json()) == (202, {"offset": 1_000_000, "complete": False})
    behind = uploader.put(first)
    assert behind.status_code == 409
    assert uploader.put(second, offset=1_000_000).json()["offset"] == 2_000_000
    assert uploader.status() == {"offset": 2_000_000, "complete": False}
    assert uploader.put(DOCUMENT[2_000_000:], offset=2_000_000).json()["complete"]


def test_a_connection_that_breaks_leaves_what_can_be_gone_on_with(uploader: Uploader) -> None:
    uploader.cut_off(DOCUMENT[:1_500_000])
    deadline = time.monotonic() + 30
    while (offset := uploader.status()["offset"]) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert offset == 1_500_000
    assert uploader.put(DOCUMENT[offset:], offset=offset).json()["complete"]


def test_other_bytes_than_announced_are_refused_and_forgotten(uploader: Uploader) -> None:
    other = bytes(len(DOCUMENT))
    assert uploader.put(other).status_code == 400
    assert uploader.status() == {"offset": 0, "complete": False}
    assert uploader.put(DOCUMENT + b"x").status_code == 413
    assert uploader.put(DOCUMENT).json()["complete"]


def test_bytes_that_are_no_text_pass(uploader: Uploader) -> None:
    content = os.urandom(100_000)
    assert uploader.put(content, document=content).json() == {"offset": 100_000, "complete": True}


def test_who_may_upload_and_what(uploader: Uploader, racks: Rack) -> None:
    stranger = racks.runner()
    assert uploader.put(DOCUMENT, key=stranger.key).status_code == 401
    assert uploader.put(DOCUMENT, key=racks.server.admin_key).status_code == 401
    foreign = Uploader(racks, stranger, uploader.job, 1)
    assert foreign.put(DOCUMENT).status_code == 404
    assert uploader.put(DOCUMENT, lease=2).status_code == 409
    for wrong in ({"lease": 0}, {"size": 0}, {"checksum": "ABC"}, {"offset": -1}, {"lease": "1.0"}, {"offset": 10**20}):
        assert uploader.put(DOCUMENT, **wrong).status_code == 400, wrong
    assert uploader.put(b"", size=2 * 1024**3).status_code == 413
    racks.move(uploader.job, JobEvent.CANCEL)
    assert uploader.put(DOCUMENT).status_code == 409, "a job that is over takes nothing"


def events(response: httpx.Response) -> Iterator[dict[str, str]]:
    """The events of a stream as they come."""
    event: dict[str, str] = {}
    for line in response.iter_lines():
        if not line:
            if event:
                yield event
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value


@pytest.fixture
def printing(racks: Rack) -> Iterator[tuple[OwnRunner, dict[str, Any], str]]:
    """A runner with a job, what names it in messages, and the path of its output."""
    spec = racks.own_spec()
    job = racks.submit(spec)
    with greeted(racks, racks.runner(spec=spec)) as own:
        own.want(1)
        yield own, own.take(), f"/v0/projects/{racks.floor.project}/jobs/{job}/output"


def printed(own: OwnRunner, held: dict[str, Any], offset: int, text: str, *, iteration: int = 0) -> None:
    chunk = {"iteration": iteration, "stream": "stdout", "data": base64.b64encode(text.encode()).decode()}
    assert own.tell(event="output", offset=offset, chunks=[chunk], **held)["event"] == "ack"


def test_output_is_followed_live_to_the_end(racks: Rack, printing: tuple[OwnRunner, dict[str, Any], str]) -> None:
    own, held, path = printing
    heard: list[tuple[float, dict[str, str]]] = []

    def follow() -> None:
        with racks.server.client() as client, client.stream("GET", path, params={"follow": "true"}) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            heard.extend((time.monotonic(), event) for event in events(response))

    follower = threading.Thread(target=follow)
    follower.start()
    time.sleep(0.3)
    own.tell(event="phase", phase="exec", **held)
    printed(own, held, 0, "one ")
    printed(own, held, 4, "zwö")
    time.sleep(0.3)
    sent_s = time.monotonic()
    own.tell(event="running", **held)
    own.tell(event="completed", results=[{"exit_code": 0, "stdout": "one zwö"}], **held)
    follower.join(10)
    said = [(event["event"], json.loads(event["data"])) for _, event in heard]
    output = [data["text"] for name, data in said if name == "output"]
    assert output == ["one ", "zwö"]
    assert [moment for moment, event in heard if event["event"] == "output"][-1] < sent_s, "not held until the end"
    assert ("phase", {"phase": "exec", "iteration": 0, "status": "claimed"}) in said
    assert said[-1][0] == "end" and said[-1][1]["status"] in ("completed", "processed")


def test_phase_comes_with_its_iteration_and_after_what_was_printed_before(
    racks: Rack, printing: tuple[OwnRunner, dict[str, Any], str]
) -> None:
    own, held, path = printing

    def said() -> list[str]:
        with racks.server.client() as client, client.stream("GET", path) as response:
            found = [(event["event"], json.loads(event["data"])) for event in events(response)]
        return [data.get("text") or f"{data['phase']} {data['iteration']}" for name, data in found if name != "end"]

    own.tell(event="phase", phase="rootfs", iteration=0, **held)
    own.tell(event="phase", phase="exec", iteration=1, **held)
    printed(own, held, 0, "one", iteration=1)
    assert said() == ["exec 1", "one"]
    own.tell(event="phase", phase="collect", iteration=1, **held)
    assert said() == ["one", "collect 1"]
    own.tell(event="phase", phase="exec", iteration=2, **held)
    printed(own, held, 3, "two", iteration=2)
    assert said() == ["one", "exec 2", "two"]
    for number in range(40):
        printed(own, held, 6 + number, "x", iteration=2)
    own.tell(event="phase", phase="spawn", iteration=3, **held)
    assert said()[-2:] == ["x", "spawn 3"]
    # That the benchmark began says nothing of a phase that was named since.
    own.tell(event="running", **held)
    with racks.server.client() as client:
        view = client.get(path.removesuffix("/output")).json()
    assert (view["status"], view["phase"], view["phase_iteration"]) == ("running", "spawn", 3)


def test_output_that_is_cut_otherwise_when_it_is_sent_again_is_stored_once(
    racks: Rack, printing: tuple[OwnRunner, dict[str, Any], str]
) -> None:
    own, held, path = printing
    printed(own, held, 0, "abc")
    printed(own, held, 1, "bcdef")
    printed(own, held, 3, "def")
    with racks.server.client() as client, client.stream("GET", path) as response:
        found = [json.loads(event["data"])["text"] for event in events(response) if event["event"] == "output"]
    assert found == ["abc", "def"]


def test_a_follower_that_comes_back_goes_on_after_what_it_read(
    racks: Rack, printing: tuple[OwnRunner, dict[str, Any], str]
) -> None:
    own, held, path = printing
    printed(own, held, 0, "one")
    printed(own, held, 3, "two")
    with racks.server.client() as client:
        with client.stream("GET", path) as response:
            first = next(event for event in events(response) if event["event"] == "output")
        assert first["id"] == f"{held['lease']}-3"
        with client.stream("GET", path, headers={"Last-Event-ID": first["id"]}) as response:
            rest = [json.loads(event["data"]) for event in events(response) if event["event"] == "output"]
        assert [data["text"] for data in rest] == ["two"]
        with client.stream("GET", path, headers={"Last-Event-ID": "nonsense"}) as response:
            assert sum(event["event"] == "output" for event in events(response)) == 2


def test_a_job_that_begins_anew_prints_anew(racks: Rack) -> None:
    spec = racks.own_spec()
    job = racks.submit(spec, retry_allowed=True)
    path = f"/v0/projects/{racks.floor.project}/jobs/{job}/output"
    with greeted(racks, racks.runner(spec=spec)) as own:
        own.want(1)
        first = own.take()
        own.tell(event="phase", phase="pull", **first)
        printed(own, first, 0, "first try, and a long one")
        own.tell(event="failed", error="lost", infrastructure=True, **first)
        own.want(1)
        second = own.take()
        printed(own, second, 0, "second")
        with racks.server.client() as client:
            headers = {"Last-Event-ID": f"{first['lease']}-25"}
            with client.stream("GET", path, headers=headers) as response:
                said = [(event["event"], json.loads(event["data"])) for event in events(response)]
    assert ("restart", {"lease": second["lease"]}) in said
    assert [data["text"] for name, data in said if name == "output"] == ["second"]


def test_a_finished_job_of_a_public_runner_shows_its_final_output(uploader: Uploader, racks: Rack) -> None:
    results = [{"exit_code": 0, "stdout": "out", "stderr": "err"}]
    uploader.runner.complete(uploader.job, results)
    path = f"/v0/projects/{racks.floor.project}/jobs/{uploader.job}/output"
    with racks.server.client() as client, client.stream("GET", path, params={"follow": "true"}) as response:
        said = [(event["event"], json.loads(event["data"])) for event in events(response)]
    assert said == [
        ("output", {"iteration": 1, "stream": "stdout", "text": "out"}),
        ("output", {"iteration": 1, "stream": "stderr", "text": "err"}),
        ("end", {"status": "processed", "phase": None}),
    ]


def test_output_is_not_for_strangers(racks: Rack, printing: tuple[OwnRunner, dict[str, Any], str]) -> None:
    own, held, path = printing
    printed(own, held, 0, "secret")
    with racks.server.client(None) as stranger:
        assert stranger.get(path.removesuffix("/output")).status_code == 200, "the project is public"
        refused = stranger.get(path)
    assert refused.status_code == 401
    assert "secret" not in refused.text


def test_one_caller_follows_so_much_and_others_all_the_same(
    racks: Rack, printing: tuple[OwnRunner, dict[str, Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metalmark.server.routes_output._FOLLOWERS_OF_ONE", 1)
    _, _, path = printing
    with racks.server.client() as client:
        keys = f"/v0/projects/{racks.floor.project}/keys"
        other = client.post(keys, json={"name": "other"}).json()["key"]
        with client.stream("GET", path, params={"follow": "true"}):
            assert client.get(path).status_code == 429
            with racks.server.client(other) as second:
                assert second.get(path).status_code == 200
        gone_s = time.monotonic() + 30
        while client.get(path).status_code != 200:
            assert time.monotonic() < gone_s, "whoever is gone is not counted"
            time.sleep(0.05)


def test_an_unknown_job_has_no_output(racks: Rack) -> None:
    with racks.server.client() as client:
        path = f"/v0/projects/{racks.floor.project}/jobs/0197c3d4-0000-7000-8000-000000000001/output"
        assert client.get(path).status_code == 404
        assert client.get(path.replace("0197c3d4-0000-7000-8000-000000000001", "nonsense")).status_code == 400


def test_live_output_and_unfinished_uploads_go_once_their_job_is_over(
    racks: Rack, printing: tuple[OwnRunner, dict[str, Any], str], uploader: Uploader, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, held, path = printing
    printed(own, held, 0, "old")
    uploader.put(DOCUMENT[:1000])

    def outputs() -> int:
        with racks.server.client() as client:
            return client.get(path).text.count("event: output")

    monkeypatch.setattr("metalmark.server.output_sweep.KEPT", timedelta(seconds=-60))
    racks.call(lambda context: OutputSweep(context).sweep())
    assert outputs() == 1 and uploader.status()["offset"] == 1000, "what runs is kept"
    for job in (held["job"], uploader.job):
        racks.move(job, JobEvent.CANCEL)
    # What somebody else put there is left alone, and keeps nothing else.
    racks.call(lambda context: context.blobs.put("uploads/0-of-somebody/x", b"x"))
    racks.call(lambda context: OutputSweep(context).sweep())
    assert len(racks.call(lambda context: context.blobs.below("uploads/0-of-somebody"))) == 1
    assert outputs() == 0
    assert racks.call(lambda context: context.blobs.below(f"uploads/{uploader.job}")) == ()
