"""``metalmark image push`` on ways that are not straight: https, proxies, a server and a client that are killed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx
import pytest
from tests.integration.cli.conftest import CommandLine
from tests.integration.cli.forward_proxy import forward_proxy
from tests.integration.server.authority import make_authority
from tests.integration.server.object_stores import bucket, object_store

from metalmark.model import MetalmarkError
from metalmark.oci.layout import LayoutOrigin
from metalmark.oci.manifest import Descriptor
from metalmark.testing.images import FakeImage, FakeLayer, tar_of, write_layout
from metalmark.testing.running_server import RunningServer, running_server
from metalmark.testing.server_process import UNLIMITED, ServerProcess, running_server_process

MIB = 1024 * 1024
CHUNK = MIB


def layout_of(folder: Path, *, size: int = 20_000) -> tuple[Path, FakeImage]:
    made = FakeImage(layers=[FakeLayer.plain(tar_of({"file": os.urandom(size)}))])
    return write_layout(folder / "layout", made), made


def meant(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, url: str, key: str) -> None:
    """Have commands ask another server than the module's."""
    path = command_line.folder / "another-key"
    path.write_text(key)
    path.chmod(0o600)
    monkeypatch.setenv("METALMARK_HOST", url)
    monkeypatch.setenv("METALMARK_API_KEY_FILE", str(path))


def there(url: str, key: str, name: str, **client: Any) -> str:
    """The digest that a tag of the server's registry stands for."""
    repository, _, tag = name.partition(":")
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=30, **client) as session:
        answer = session.get(f"/v2/{repository}/manifests/{tag}")
    assert answer.status_code == 200, answer.text
    return answer.headers["docker-content-digest"]


def test_over_https_with_an_authority_of_ones_own(
    command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, made = layout_of(tmp_path)
    authority = make_authority(tmp_path / "authority", "localhost")
    with running_server(tmp_path / "server", settings={"tls": authority.tls}) as server:
        port = server.url.rpartition(":")[2]
        meant(command_line, monkeypatch, f"https://localhost:{port}", server.admin_key)
        with pytest.raises(MetalmarkError, match="certificate") as refused:
            command_line.run("image", "push", str(layout), "secure:v1")
        assert "--ca-file" in (refused.value.hint or "")
        trusted = ("--ca-file", str(authority.ca_file))
        answer = command_line.json("image", "push", str(layout), "secure:v1", *trusted)
        assert answer["digest"] == str(made.manifest)
        assert answer["image"] == f"localhost:{port}/secure:v1"
        (listed,) = command_line.json("image", "list", "--remote", "secure", *trusted)
        assert listed["digest"] == str(made.manifest)
        command_line.run("image", "push", str(layout), "secure:v2", "--insecure-host")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
        command_line.run("image", "remove", "secure:v2")
        (listed,) = command_line.json("image", "list", "--remote", "secure")
        assert listed["name"] == "secure:v1"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_through_a_proxy(
    command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    layout, made = layout_of(tmp_path)
    # Nobody but the proxy knows where this is.
    host = "bench.invalid"
    authority = make_authority(tmp_path / "authority", host)
    trusted = ("--ca-file", str(authority.ca_file)) if scheme == "https" else ()
    settings = {"tls": authority.tls} if scheme == "https" else {}
    with forward_proxy() as proxy, running_server(tmp_path / "server", settings=settings) as server:
        port = server.url.rpartition(":")[2]
        meant(command_line, monkeypatch, f"{scheme}://{host}:{port}", server.admin_key)
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url)
        out, _ = command_line.run("image", "push", str(layout), "proxied:v1", *trusted)
        assert str(made.manifest) in out
        if scheme == "https":
            assert set(proxy.seen) == {("CONNECT", f"{host}:{port}")}
        else:
            top = f"http://{host}:{port}/v2/proxied"
            assert ("PUT", f"{top}/manifests/v1") in proxy.seen
            assert [target for method, target in proxy.seen if method == "POST"] == [f"{top}/blobs/uploads/"] * 2
        out, _ = command_line.run("image", "list", "--remote", "proxied", "--json", *trusted)
        (listed,) = json.loads(out)
        assert listed["digest"] == str(made.manifest)


Pieces = Callable[[LayoutOrigin, Descriptor, int], AsyncIterator[bytes]]


def interrupted(whole: Pieces, at: int, interrupt: Callable[[], None], starts: list[int]) -> Pieces:
    """Return a source that is interrupted once, half a chunk after an offset from which it was read.

    Args:
        whole: What it reads from.
        at: The offset.
        interrupt: Called in a thread.
        starts: Gets the offsets of the layer that it is read from; the interruption is -1.
    """

    async def pieces(origin: LayoutOrigin, descriptor: Descriptor, offset: int) -> AsyncIterator[bytes]:
        large = descriptor.size_bytes > CHUNK
        if large:
            starts.append(offset)
        async with aclosing(whole(origin, descriptor, offset)) as source:  # type: ignore[type-var]  # a generator
            async for piece in source:
                left = piece
                if large and offset == at and -1 not in starts:
                    starts.append(-1)
                    yield left[: CHUNK // 2]
                    await anyio.to_thread.run_sync(interrupt)
                    left = left[CHUNK // 2 :]
                yield left

    return pieces


@pytest.fixture(params=["folder", "objects"])
def killable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server in a process of its own, over each storage."""
    settings: dict[str, Any] = {"limits": UNLIMITED}
    with ExitStack() as stack:
        if request.param == "objects":
            store = stack.enter_context(object_store("versitygw", tmp_path / "store"))
            settings["storage"] = stack.enter_context(bucket(store)).storage
        yield stack.enter_context(running_server_process(tmp_path / "killable", settings))


def test_a_server_that_is_killed_in_the_middle_is_gone_on_with(
    command_line: CommandLine, killable: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, made = layout_of(tmp_path, size=6 * CHUNK)
    meant(command_line, monkeypatch, killable.url, killable.admin_key())
    monkeypatch.setattr("metalmark.oci.push_target.CHUNK_BYTES", CHUNK)
    starts: list[int] = []

    def restart() -> None:
        killable.kill()
        killable.start()

    monkeypatch.setattr(LayoutOrigin, "pieces", interrupted(LayoutOrigin.pieces, 3 * CHUNK, restart, starts))
    answer = command_line.json("image", "push", str(layout), "killed:v1")
    assert (answer["digest"], answer["uploaded"]) == (str(made.manifest), 2)
    before, after = starts[: starts.index(-1)], starts[starts.index(-1) + 1 :]
    assert before == [0, CHUNK, 2 * CHUNK, 3 * CHUNK]
    assert min(after) >= 3 * CHUNK, "what the server had taken is not sent again"
    key = killable.admin_key()
    assert there(killable.url, key, "killed:v1") == str(made.manifest)
    with httpx.Client(base_url=killable.url, headers={"Authorization": f"Bearer {key}"}, trust_env=False) as client:
        blob = client.get(f"/v2/killed/blobs/{made.layers[0].diff_id}")
    assert blob.content == made.layers[0].blob
    assert list((command_line.folder / "home/cache/uploads").iterdir()) == []


def test_a_push_that_was_killed_is_gone_on_with_by_the_next(
    command_line: CommandLine, running: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, made = layout_of(tmp_path, size=6 * CHUNK)
    uploads = command_line.folder / "home/cache/uploads"

    class Killed(Exception):
        pass

    def die() -> None:
        raise Killed

    starts: list[int] = []
    whole: Pieces = LayoutOrigin.pieces
    with monkeypatch.context() as patch:
        patch.setattr(LayoutOrigin, "pieces", interrupted(whole, 0, die, starts))
        with pytest.raises(Killed):
            command_line.run("image", "push", str(layout), "resumed:v1")
    # All of the layer was one request, of which the server keeps what came.
    kept = [path.read_text() for path in uploads.iterdir() if path.stat().st_size]
    assert kept
    with running.client() as client:
        deadline = time.monotonic() + 60
        while not any(client.get(location).headers.get("range", "0-0") != "0-0" for location in kept):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    again: list[int] = []
    monkeypatch.setattr(LayoutOrigin, "pieces", interrupted(whole, -1, die, again))
    answer = command_line.json("image", "push", str(layout), "resumed:v1")
    assert answer["digest"] == str(made.manifest)
    assert again == [CHUNK // 2]
    assert list(uploads.iterdir()) == []
