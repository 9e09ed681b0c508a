"""Offers of updates over the channel, and the content that they lead to."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.integration.server.channel.conftest import Rack, rack
from tests.integration.server.channel.test_own import greeted

import metalmark
from metalmark.model import InputError, NotFound, ProtocolError
from metalmark.server import ServerContext, UpdatePublisher, update_offers
from metalmark.store import PublishedUpdate, list_acts, list_updates
from metalmark.store.page import Page
from metalmark.testing.public_runner import PublicRunner
from metalmark.testing.raw_channel import CLOSE, RawChannel
from metalmark.wire import UpdateManifest, UpdateTarget, UpdateWheel, write_artifact

ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\x3e\x00" + b"program"


@pytest.fixture
def server(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rack]:
    monkeypatch.setattr(update_offers, "LOOK_EVERY_S", 0.0)
    with rack(tmp_path / "server", database_url, jobs={"heartbeat_timeout_s": 60}) as made:
        yield made


def artifact(folder: Path, version: str, *architectures: str) -> Path:
    content = f"wheel of {version}".encode()
    manifest = UpdateManifest(
        version=version,
        targets=tuple(
            UpdateTarget.model_validate({"python": "3.11", "architecture": name})
            for name in architectures or ("x86_64",)
        ),
        installer="pip-1-py3-none-any.whl",
        requirements=("x",),
        wheels=(
            UpdateWheel(
                file="pip-1-py3-none-any.whl", sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content)
            ),
        ),
    )
    target = io.BytesIO()
    write_artifact(target, manifest, {"pip-1-py3-none-any.whl": io.BytesIO(content)})
    path = folder / f"{version}.tar"
    path.write_bytes(target.getvalue())
    return path


def publish(server: Rack, file: Path) -> str:
    async def act(context: ServerContext) -> tuple[PublishedUpdate, ...]:
        return await UpdatePublisher(context.store, context.blobs, context.clock).publish_artifact(file)

    (checksum,) = {update.checksum for update in server.call(act)}
    return checksum


def publish_program(server: Rack, file: Path, *, version: str = "0.7.0", channel: str = "stable") -> str:
    async def act(context: ServerContext) -> tuple[PublishedUpdate, ...]:
        publisher = UpdatePublisher(context.store, context.blobs, context.clock)
        return await publisher.publish_program(file, version=version, architecture="x86_64", channel=channel)

    return server.call(act)[0].checksum


def withdraw(server: Rack, checksum: str) -> int:
    async def act(context: ServerContext) -> int:
        return await UpdatePublisher(context.store, context.blobs, context.clock).withdraw(checksum)

    return server.call(act)


def published(server: Rack) -> tuple[PublishedUpdate, ...]:
    async def act(context: ServerContext) -> tuple[PublishedUpdate, ...]:
        async with context.store.read() as connection:
            return await list_updates(connection)

    return server.call(act)


def blobs(server: Rack) -> list[str]:
    async def act(context: ServerContext) -> list[str]:
        return [found.key for found in await context.blobs.below("updates")]

    return server.call(act)


def test_a_runner_of_another_version_is_told_once_and_can_fetch_it(server: Rack, tmp_path: Path) -> None:
    file = artifact(tmp_path, "2.0")
    checksum = publish(server, file)
    with greeted(server, server.runner(), checksum="0" * 64) as own:
        assert own.want(0)["event"] == "ack"
        offer = own.hear("update")
        assert (offer["version"], offer["checksum"]) == ("2.0", checksum)
        own.want(0)
        assert own.pushed == []
        assert own.channel.is_silent(0.2)
    with server.server.client() as client:
        answer = client.get(urlsplit(offer["url"]).path)
    assert answer.content == file.read_bytes()
    assert answer.headers["content-length"] == str(file.stat().st_size)


def test_what_is_published_meanwhile_is_told_over_an_open_connection(server: Rack, tmp_path: Path) -> None:
    with greeted(server, server.runner(), checksum="0" * 64) as own:
        own.want(0)
        first = publish(server, artifact(tmp_path, "2.0"))
        own.tell(event="heartbeat")
        assert own.hear("update")["checksum"] == first
        second = publish(server, artifact(tmp_path, "1.0"))
        own.tell(event="heartbeat")
        assert own.hear("update")["checksum"] == second
    assert blobs(server) == [f"updates/{second}"], "what nobody is offered any more is deleted"


@pytest.mark.parametrize("case", ["same checksum", "same version", "other architecture", "nothing published"])
def test_nothing_is_offered_where_there_is_nothing_new(server: Rack, tmp_path: Path, case: str) -> None:
    fields: dict[str, object] = {"checksum": "0" * 64}
    if case == "same version":
        publish(server, artifact(tmp_path, "2.0"))
        fields = {"version": "2.0"}
    elif case == "other architecture":
        publish(server, artifact(tmp_path, "2.0", "aarch64"))
    elif case == "same checksum":
        fields = {"checksum": publish(server, artifact(tmp_path, "2.0"))}
    with greeted(server, server.runner(), **fields) as own:
        own.want(0)
        assert own.channel.is_silent(0.2)
        assert own.pushed == []


def test_a_runner_that_does_not_update_itself_is_told_of_another_version(server: Rack, tmp_path: Path) -> None:
    publish(server, artifact(tmp_path, "2.0"))
    with greeted(server, server.runner(), version=metalmark.__version__) as own:
        own.want(0)
        assert own.hear("update")["version"] == "2.0"


def test_an_artifact_is_for_all_its_architectures(server: Rack, tmp_path: Path) -> None:
    publish(server, artifact(tmp_path, "2.0", "x86_64", "aarch64"))
    assert {(update.architecture, update.version) for update in published(server)} == {
        ("x86_64", "2.0"),
        ("aarch64", "2.0"),
    }


def test_what_is_withdrawn_is_neither_offered_nor_there(server: Rack, tmp_path: Path) -> None:
    checksum = publish(server, artifact(tmp_path, "2.0"))
    assert withdraw(server, checksum) == 1
    with greeted(server, server.runner(), checksum="0" * 64) as own:
        own.want(0)
        assert own.channel.is_silent(0.2)
    with server.server.client() as client:
        assert client.get(f"/v0/updates/{checksum}").status_code == 404
    assert blobs(server) == []
    with pytest.raises(NotFound):
        withdraw(server, checksum)


@pytest.mark.parametrize("path", ["0" * 64, "0" * 63, "x", "%2e%2e"])
def test_no_other_content_is_to_be_had(server: Rack, path: str) -> None:
    with server.server.client() as client:
        assert client.get(f"/v0/updates/{path}").status_code in (400, 404)


def test_what_is_no_artifact_is_not_published(server: Rack, tmp_path: Path) -> None:
    good = artifact(tmp_path, "2.0").read_bytes()
    for content in (b"", b"not a tar", good[:-11000], ELF):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(ProtocolError):
            publish(server, tmp_path / "bad")
    assert published(server) == ()
    assert blobs(server) == []


def test_publishing_and_withdrawing_are_in_the_audit_log(server: Rack, tmp_path: Path) -> None:
    withdraw(server, publish(server, artifact(tmp_path, "2.0")))

    async def acts(context: ServerContext) -> list[str]:
        async with context.store.read() as connection:
            found, _ = await list_acts(connection, page=Page(limit=10))
        return [record.act.action for record in found]

    assert server.call(acts)[:2] == ["update.withdraw", "update.publish"]


def ready(runner: PublicRunner, **said: object) -> RawChannel:
    channel = runner.connect()
    fields: dict[str, object] = (
        {"runner": {"os": "linux", "arch": "x86_64", "version": "0.6.12", **said}} if said else {}
    )
    channel.say(event="ready", poll_timeout=1, **fields)
    return channel


def test_a_public_runner_is_offered_its_own_program_and_let_go(server: Rack, tmp_path: Path) -> None:
    (tmp_path / "runner").write_bytes(ELF)
    checksum = publish_program(server, tmp_path / "runner")
    runner = server.runner()
    channel = ready(runner, channel="stable")
    offer = channel.hear()
    assert (offer["event"], offer["version"], offer["checksum"]) == ("update", "0.7.0", checksum)
    assert urlsplit(offer["url"]).path == f"/v0/updates/{checksum}"
    assert channel.frame().opcode == CLOSE
    runner.disconnect()


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"version": "0.7.0"},
        {"os": "macos"},
        {"arch": "aarch64"},
        {"channel": "canary", "checksum": "0" * 64},
        {"channel": "canary"},
    ],
)
def test_a_public_runner_that_is_not_meant_polls_on(server: Rack, tmp_path: Path, said: dict[str, object]) -> None:
    (tmp_path / "runner").write_bytes(ELF)
    publish_program(server, tmp_path / "runner")
    runner = server.runner()
    assert ready(runner, **said).hear() == {"event": "no_job"}
    runner.disconnect()


def test_on_the_canary_channel_the_checksum_counts(server: Rack, tmp_path: Path) -> None:
    (tmp_path / "runner").write_bytes(ELF)
    checksum = publish_program(server, tmp_path / "runner", channel="canary")
    runner = server.runner()
    assert ready(runner, channel="canary", checksum=checksum).hear() == {"event": "no_job"}
    runner.disconnect()
    offer = ready(runner, channel="canary", checksum="0" * 64).hear()
    assert (offer["event"], offer["version"], offer["checksum"]) == ("update", "canary", checksum)
    runner.disconnect()


def test_an_artifact_is_never_offered_to_a_public_runner(server: Rack, tmp_path: Path) -> None:
    publish(server, artifact(tmp_path, "2.0"))
    runner = server.runner()
    assert ready(runner, channel="stable").hear() == {"event": "no_job"}
    runner.disconnect()


def test_what_is_no_program_is_not_published_for_public_runners(server: Rack, tmp_path: Path) -> None:
    for content in (b"", b"#!/bin/sh\n" * 10, artifact(tmp_path, "2.0").read_bytes(), ELF.replace(b"\x3e", b"\xb7")):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(InputError, match="no program"):
            publish_program(server, tmp_path / "bad")
    assert published(server) == ()
