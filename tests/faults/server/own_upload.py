"""An upload of results that a test breaks off and goes on with, byte by byte."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tests.faults.server.own_rig import Life, Rig

SIZE_BYTES = 9 * 1024 * 1024
"""More than the server keeps in memory of an upload."""


@dataclass(kw_only=True)
class Uploading:
    """The results of one job on their way."""

    rig: Rig
    life: Life
    document: bytes = b""
    _socket: socket.socket | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        printed = (self.life.job * (SIZE_BYTES // len(self.life.job)))[:SIZE_BYTES]
        self.document = json.dumps({"results": [{"exit_code": 0, "stdout": printed}]}).encode()

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.document).hexdigest()

    @property
    def named(self) -> dict[str, Any]:
        """What the message that ends the job says of it."""
        return {"uploaded": {"checksum": self.checksum, "size_bytes": len(self.document)}}

    @property
    def _path(self) -> str:
        return f"/v0/runners/{self.rig.runner['uuid']}/jobs/{self.life.job}/output"

    def begin(self, until: float) -> None:
        """Send so much of the whole, and leave the connection open without reading an answer."""
        query = f"lease={self.life.lease}&checksum={self.checksum}&size={len(self.document)}&offset=0"
        head = (
            f"PUT {self._path}?{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(self.document)}\r\n"
            f"Authorization: Bearer {self.rig.runner['key']}\r\n\r\n"
        )
        self._socket = socket.create_connection(("127.0.0.1", self.rig.place.server.port), timeout=20)
        self._socket.sendall(head.encode() + self.document[: int(until * len(self.document))])

    def break_off(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def finish(self, *, seconds: float = 40) -> bool:
        """Go on from where the server is until it has everything; whether the lease was good for it."""
        self.break_off()
        deadline = time.monotonic() + seconds
        query = {"lease": self.life.lease, "checksum": self.checksum, "size": len(self.document)}
        headers = {"authorization": f"Bearer {self.rig.runner['key']}"}
        url = self.rig.place.server.url
        with httpx.Client(
            base_url=url, headers=headers, params=query, timeout=20, trust_env=False, verify=False
        ) as client:
            while True:
                assert time.monotonic() < deadline, "the upload does not end"
                with contextlib.suppress(httpx.TransportError):
                    there = client.get(self._path)
                    if there.status_code in (404, 409):
                        return False
                    if there.status_code == 200:
                        arrived = there.json()["offset"]
                        assert 0 <= arrived <= len(self.document)
                        put = client.put(self._path, params={"offset": arrived}, content=self.document[arrived:])
                        if put.status_code == 200 and put.json()["complete"]:
                            return True
                        # 409: what was under way when the connection broke has come in meanwhile.
                        assert put.status_code in (200, 202, 409, 503), put.text
                time.sleep(0.2)

    def is_stored(self, storage: Path) -> bool:
        """Whether the server's folder has the very bytes."""
        found = list(storage.glob(f"outputs/*/{self.life.job}/{self.life.lease}-{self.checksum}.json"))
        return [path.read_bytes() for path in found] == [self.document]
