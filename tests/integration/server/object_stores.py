"""Object stores with the S3 interface that tests run: `moto`, and `versitygw`, which is a product."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

import boto3  # type: ignore[import-untyped]  # it has no types
import httpx
import pytest
from botocore.config import Config  # type: ignore[import-untyped]  # as boto3

from metalmark.testing.server_process import free_port

ROOT = Path(__file__).parents[3]
STORES = ("moto", "versitygw")
_START_S = 60


@dataclass(kw_only=True)
class ObjectStore:
    """An object store. It may be started again after its end, at the same place and with what it had."""

    command: Sequence[str | Path]
    url: str
    user: str = "who"
    password: str = "what"
    _process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def start(self) -> None:
        """Start it and wait until it answers."""
        environment = {**os.environ, "ROOT_ACCESS_KEY": self.user, "ROOT_SECRET_KEY": self.password}
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(self.command, stdin=quiet, stdout=quiet, stderr=quiet, env=environment)
        deadline = time.monotonic() + _START_S
        while True:
            # Whoever asks as nobody is answered by any of them, if only with a refusal.
            with contextlib.suppress(httpx.TransportError):
                httpx.get(self.url, timeout=10, trust_env=False)
                return
            assert self._process.poll() is None, f"{self.command} ended"
            assert time.monotonic() < deadline, f"{self.command} does not answer"
            time.sleep(0.05)

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def environment(self) -> dict[str, str]:
        """What a server finds the store by."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": self.user,
            "AWS_SECRET_ACCESS_KEY": self.password,
        }

    def client(self) -> Any:
        """Return another implementation's client."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.user,
            aws_secret_access_key=self.password,
            config=Config(proxies={}, s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A bucket of a store."""

    store: ObjectStore
    name: str
    client: Any

    @property
    def storage(self) -> str:
        """Its place as a server's configuration has it."""
        return f"s3://{self.name}/large"

    def keys(self) -> set[str]:
        """Return the names of all objects."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {entry["Key"] for page in pages for entry in page.get("Contents", ())}

    def content(self, key: str) -> bytes:
        found: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return found

    @contextmanager
    def named(self) -> Iterator[None]:
        """Have servers that are started meanwhile find the store."""
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in self.store.environment.items():
                patch.setenv(variable, value)
            yield


@contextmanager
def object_store(kind: str, folder: Path) -> Iterator[ObjectStore]:
    """Run a store.

    Args:
        kind: One of `STORES`.
        folder: Where it may keep what it has.
    """
    port = free_port()
    command: list[str | Path] = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    if kind == "versitygw":
        folder.mkdir(parents=True)
        (folder / "objects").mkdir()
        (folder / "attributes").mkdir()
        # Not every file system that tests are run on keeps extended attributes.
        place: list[str | Path] = ["posix", "--sidecar", folder / "attributes", folder / "objects"]
        command = [_versitygw(), "--port", f"127.0.0.1:{port}", "--quiet", *place]
    store = ObjectStore(command=command, url=f"http://127.0.0.1:{port}")
    try:
        store.start()
        yield store
    finally:
        store.kill()


@contextmanager
def bucket(store: ObjectStore) -> Iterator[Bucket]:
    """Make a bucket, which servers that are started meanwhile find."""
    made = new_bucket(store)
    with made.named():
        yield made


def new_bucket(store: ObjectStore) -> Bucket:
    """Make a bucket."""
    name, client = f"b{token_hex(6)}", store.client()
    client.create_bucket(Bucket=name)
    return Bucket(store=store, name=name, client=client)


def find_versitygw() -> Path | None:
    """Return the program of versitygw, where there is one."""
    named = os.environ.get("METALMARK_VERSITYGW") or shutil.which("versitygw")
    program = Path(named) if named else ROOT / ".cache/tools/versitygw"
    return program if program.exists() else None


def _versitygw() -> Path:
    program = find_versitygw()
    if program is None:
        pytest.skip("versitygw is not there (scripts/build-object-store makes it, with Go)")
    return program
