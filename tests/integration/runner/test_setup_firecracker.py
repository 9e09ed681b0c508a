"""Firecracker by set-up: from a web server, into a folder, out of a folder, and never with another digest."""

from __future__ import annotations

import hashlib
import io
import platform
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from metalmark.model import DigestMismatch, MetalmarkError, StableError, TransientError
from metalmark.runner.apt import Apt
from metalmark.runner.bundle import Kind, read_bundle, verify_bundle
from metalmark.runner.distribution import Distribution
from metalmark.runner.host_facts import read_host_facts
from metalmark.runner.setup_apply import SetupReport, SetupRun
from metalmark.runner.setup_download import download_bundle
from metalmark.runner.setup_plan import InstallFirecracker, SetupPlan
from metalmark.sandbox import DriverSettings, PinnedFirecracker
from metalmark.system import Folders

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="Firecracker has no release for it"),
]
VERSION = PinnedFirecracker.version
SCRIPT = f"#!/bin/sh\necho 'Firecracker {VERSION}'\n".encode()


class Site(ThreadingHTTPServer):
    """Serves one release; can be told to cut or to answer with an error."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        machine = platform.machine()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            entry = tarfile.TarInfo(f"release-{VERSION}-{machine}/firecracker-{VERSION}-{machine}")
            entry.size, entry.mode = len(SCRIPT), 0o755
            tar.addfile(entry, io.BytesIO(SCRIPT))
        self.archive = packed.getvalue()
        self.digest = hashlib.sha256(self.archive).hexdigest()
        self.status = 200
        self.promised = len(self.archive)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(self.server.promised))
        self.end_headers()
        self.wfile.write(self.server.archive)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    server = Site()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def release(tmp_path: Path, site: Site) -> PinnedFirecracker:
    folders = Folders(state=tmp_path / "s", cache=tmp_path / "c", run=tmp_path / "r", config=tmp_path / "e")
    return PinnedFirecracker(DriverSettings(folders=folders), site=site.url, sha256=site.digest)


async def install(pinned: PinnedFirecracker) -> SetupReport:
    plan = SetupPlan(actions=(InstallFirecracker(version=VERSION, required=True),))
    return await SetupRun(apt=Apt({}), firecracker=pinned, say=lambda _: None).apply(plan)


async def test_it_is_fetched_installed_and_found_by_doctor(tmp_path: Path, site: Site) -> None:
    pinned = release(tmp_path, site)
    report = await install(pinned)
    assert report.failed == ()
    binary = pinned.installed()
    assert binary is not None
    assert binary.read_bytes() == SCRIPT
    assert site.asked[0].endswith(f"/{VERSION}/firecracker-{VERSION}-{platform.machine()}.tgz")
    folders = Folders(state=tmp_path / "s", cache=tmp_path / "c", run=tmp_path / "r", config=tmp_path / "e")
    facts = await read_host_facts(folders=folders, environment={"PATH": "/usr/bin:/bin"}, firecracker=binary)
    assert facts.tool("firecracker").version == VERSION.removeprefix("v")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"archive": b"something else", "promised": 14}, DigestMismatch),
        ({"status": 404}, StableError),
        ({"status": 503}, TransientError),
        ({"promised": 10_000_000}, TransientError),
    ],
)
async def test_what_is_not_the_pinned_release_is_never_installed(
    tmp_path: Path, site: Site, change: dict[str, object], kind: type[MetalmarkError]
) -> None:
    pinned = release(tmp_path, site)
    for name, value in change.items():
        setattr(site, name, value)
    report = await install(pinned)
    assert [type(error) for _, error in report.failed] == [kind]
    assert pinned.installed() is None


async def test_it_travels_in_a_folder_and_is_checked_again(tmp_path: Path, site: Site) -> None:
    pinned, folder = release(tmp_path, site), tmp_path / "bundle"
    await download_bundle(
        folder,
        apt=Apt({}),
        distribution=Distribution(name="debian", version="12"),
        architecture="amd64",
        unwanted=frozenset(("packages", "kernel")),
        firecracker=pinned,
        say=lambda _: None,
    )
    bundle = read_bundle(folder)
    verify_bundle(folder, bundle)
    (archive,) = bundle.paths(folder, Kind.FIRECRACKER)
    asked = len(site.asked)
    assert (await pinned.install(archive)).read_bytes() == SCRIPT
    assert len(site.asked) == asked, "installing from the folder needs no network"
    archive.write_bytes(site.archive + b"x")
    with pytest.raises(DigestMismatch):
        await pinned.install(archive)
