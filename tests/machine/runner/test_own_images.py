"""``metalmark image push`` and ``metalmark run --image PROJECT:TAG``: nothing but servers and a runner is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.integration.server.authority import make_authority

from metalmark.testing.images import FakeImage, index_of, write_layout
from metalmark.testing.postgresql import find_postgresql, running_postgresql
from metalmark.testing.rig import Rig, standing_rig
from metalmark.testing.runner_process import RunnerProcess

pytestmark = [pytest.mark.needs_root]


@dataclass(kw_only=True)
class Place:
    """Servers, a runner of containers at the last of them, and a private project."""

    rig: Rig
    runner: RunnerProcess
    trusted: list[str]
    """Words that name the authority of the servers' certificate."""

    def metalmark(self, *words: str, at: int = 0, fails: bool = False) -> str:
        """Run a command at one of the servers, as its user, with a home of its own; what it printed."""
        kept = {
            name: text for name, text in os.environ.items() if not name.startswith(("METALMARK_", "BENCHER_", "CI"))
        }
        environment = {
            **kept,
            "METALMARK_HOME": str(self.rig.folder / "home"),
            "METALMARK_HOST": self.rig.servers[at].url,
            "METALMARK_API_KEY_FILE": str(self.rig.folder / "user.key"),
        }
        done = subprocess.run(
            [str(Path(sys.executable).with_name("metalmark")), *words, *self.trusted],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=environment,
        )
        assert (done.returncode != 0) is fails, f"{words}: {done.stdout}{done.stderr}\n{self.runner.log()[-3000:]}"
        return done.stderr if fails else done.stdout

    def image(self, said: str, *, architecture: str = "") -> FakeImage:
        """An image that says something."""
        busybox = self.rig.busybox
        config = {"Cmd": ["/bin/echo", said], "Env": ["PATH=/bin"]}
        return FakeImage(layers=busybox.layers, config=config, architecture=architecture or busybox.architecture)

    def push(self, layout: Path, name: str) -> str:
        """Push to the first server, and return the digest."""
        digest: str = json.loads(self.metalmark("image", "push", str(layout), name, "--json"))["digest"]
        return digest

    def run(self, image: str, *, at: int = 0) -> str:
        """Run an image, and return what it printed."""
        return self.metalmark("run", "--image", image, "--spec", "box", at=at)


@pytest.fixture(scope="module", params=["http, sqlite", "https, postgresql, two servers"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts and cgroups")
    folder = tmp_path_factory.mktemp("rig")
    with ExitStack() as stack:
        if request.param == "http, sqlite":
            rig, trusted = stack.enter_context(standing_rig(folder)), []
        else:
            if find_postgresql() is None:
                pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
            url = stack.enter_context(stack.enter_context(running_postgresql()).database())
            authority = make_authority(folder / "authority", "127.0.0.1", "localhost")
            secure = {"tls": authority.tls, "ca_file": authority.ca_file}
            rig = stack.enter_context(standing_rig(folder, database=url, servers=2, **secure))
            trusted = ["--ca-file", str(authority.ca_file)]
        (folder / "user.key").write_text(rig.key, encoding="ascii")
        (folder / "user.key").chmod(0o600)
        organization = rig.call("GET", "/v0/organizations")[0]["slug"]
        rig.call("POST", f"/v0/organizations/{organization}/projects", {"name": "secret", "visibility": "private"})
        runner = rig.runner("rig", rig.spec("box", "container"), url=rig.servers[-1].url, options=trusted)
        runner.start()
        yield Place(rig=rig, runner=runner, trusted=trusted)
        assert runner.stop() == 0, runner.log()
        assert rig.registry.seen == [], "nobody needed another registry"
        # No token is written down anywhere.
        assert "eyJ" not in runner.log()
        assert all("eyJ" not in server.log() for server in rig.servers)


def test_what_is_pushed_runs_and_is_nobody_elses_to_see(place: Place, tmp_path: Path) -> None:
    made = place.image("hello from our own registry")
    digest = place.push(write_layout(tmp_path / "layout", made), "secret:v1")
    assert digest == str(made.manifest)
    for server in range(len(place.rig.servers)):
        assert place.run("secret:v1", at=server) == "hello from our own registry\n"
        url = place.rig.servers[server].url
        refused = httpx.get(f"{url}/v2/secret/manifests/v1", verify=False, trust_env=False)
        assert refused.status_code == 401


def test_a_tag_that_moves_an_inner_repository_and_a_digest(place: Place, tmp_path: Path) -> None:
    first, second = place.image("first"), place.image("second")
    place.push(write_layout(tmp_path / "first", first), "secret/team/app:latest")
    assert place.run("secret/team/app") == "first\n"
    place.push(write_layout(tmp_path / "second", second), "secret/team/app:latest")
    assert place.run("secret/team/app", at=-1) == "second\n"
    assert place.run(f"secret/team/app@{first.manifest}") == "first\n"
    place.metalmark("image", "remove", f"secret/team/app@{first.manifest}")
    refused = place.metalmark("run", "--image", "secret/team/app:nothing", "--spec", "box", fails=True)
    assert "no such tag" in refused


def test_of_an_index_the_image_for_the_machine_runs(place: Place, tmp_path: Path) -> None:
    fitting = place.image("this machine's")
    other = place.image("another's", architecture="s390x")
    index = index_of([other.descriptor(platform=True), fitting.descriptor(platform=True)])
    place.push(write_layout(tmp_path / "both", other, fitting, index=index), "secret/many:v1")
    assert place.run("secret/many:v1") == "this machine's\n"
