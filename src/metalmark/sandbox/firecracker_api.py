"""Firecracker's API over its unix socket: each request with a deadline, each answer with a size limit.

Paths and bodies follow the project's published description of API version 1.15.1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import anyio
import httpx

from metalmark.model import MIB, BoxLost, PhaseTimeout, ProtocolError, StableError
from metalmark.system import monotonic_s, sleep_s

CALL_LIMIT_S: Final = 5.0
RESPONSE_LIMIT_BYTES: Final = 64 * 1024
_RETRY_S: Final = 0.005
MOST_VCPUS: Final = 32

Body = Mapping[str, object]


def machine_config(*, vcpus: int, memory_bytes: int) -> Body:
    """Return the body of ``PUT /machine-config``."""
    return {"vcpu_count": vcpus, "mem_size_mib": -(-memory_bytes // MIB), "smt": False}


def boot_source(*, kernel: Path, initramfs: Path, command_line: str) -> Body:
    """Return the body of ``PUT /boot-source``."""
    return {"kernel_image_path": str(kernel), "initrd_path": str(initramfs), "boot_args": command_line}


def drive(*, name: str, path: Path, read_only: bool) -> Body:
    """Return the body of ``PUT /drives/{drive_id}``; a guest's flush reaches the host's disk."""
    return {
        "drive_id": name,
        "path_on_host": str(path),
        "is_root_device": False,
        "is_read_only": read_only,
        "cache_type": "Unsafe" if read_only else "Writeback",
        "io_engine": "Sync",
    }


def vsock(*, socket_path: str) -> Body:
    """Return the body of ``PUT /vsock``; 3 is the first number that is free for a guest."""
    return {"guest_cid": 3, "uds_path": socket_path}


class FirecrackerApi:
    """A client of one Firecracker process; an asynchronous context manager.

    Args:
        socket_path: The API's socket.
        limit_s: Deadline of each request.
    """

    def __init__(self, socket_path: Path, *, limit_s: float = CALL_LIMIT_S) -> None:
        self._socket_path = socket_path
        self._limit_s = limit_s
        transport = httpx.AsyncHTTPTransport(uds=str(socket_path))
        # The environment's proxies have no business with a local socket.
        self._client = httpx.AsyncClient(
            transport=transport, base_url="http://localhost", timeout=limit_s, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    async def wait_up(self, *, limit_s: float, alive: Callable[[], bool]) -> str:
        """Wait until the API answers, and return Firecracker's version.

        Args:
            limit_s: How long to wait.
            alive: Whether the process still runs; one that has ended is not waited for.

        Raises:
            BoxLost: The process has ended.
            PhaseTimeout: It does not within the limit.
            ProtocolError: Something else answers.
        """
        deadline = monotonic_s() + limit_s
        while True:
            try:
                answer = await self.get("/")
            except BoxLost:
                if not alive():
                    raise
                if monotonic_s() > deadline:
                    raise PhaseTimeout("Firecracker API", limit_s) from None
                await sleep_s(_RETRY_S)
                continue
            version = answer.get("vmm_version")
            if not isinstance(version, str):
                raise ProtocolError("what answers on Firecracker's socket names no version")
            return version

    async def put(self, path: str, body: Body) -> None:
        """Send a PUT request.

        Raises:
            StableError: Firecracker refused it.
            PhaseTimeout, BoxLost, ProtocolError
        """
        await self._request("PUT", path, body)

    async def get(self, path: str) -> Mapping[str, object]:
        """Send a GET request and return the answer.

        Raises:
            StableError, PhaseTimeout, BoxLost, ProtocolError
        """
        content = await self._request("GET", path, None)
        try:
            answer = json.loads(content)
        except ValueError as error:
            raise ProtocolError(f"Firecracker's answer to GET {path} is no JSON") from error
        if not isinstance(answer, dict):
            raise ProtocolError(f"Firecracker's answer to GET {path} is no object")
        return answer

    async def _request(self, method: str, path: str, body: Body | None) -> bytes:
        try:
            with anyio.fail_after(self._limit_s):
                async with self._client.stream(method, path, json=body) as response:
                    content = await self._bounded(response, f"{method} {path}")
        except (TimeoutError, httpx.TimeoutException) as error:
            raise PhaseTimeout(f"Firecracker {method} {path}", self._limit_s) from error
        except httpx.HTTPError as error:
            raise BoxLost(f"Firecracker does not answer {method} {path}", why=str(error)) from error
        if response.status_code >= httpx.codes.MULTIPLE_CHOICES:
            raise StableError(
                f"Firecracker refused {method} {path} with {response.status_code}", why=_fault_message(content)
            )
        return content

    async def _bounded(self, response: httpx.Response, what: str) -> bytes:
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > RESPONSE_LIMIT_BYTES:
                raise ProtocolError(f"Firecracker's answer to {what} is over {RESPONSE_LIMIT_BYTES} bytes")
        return bytes(content)


def _fault_message(content: bytes) -> str:
    try:
        return str(json.loads(content)["fault_message"])[:1000]
    except (ValueError, KeyError, TypeError):
        return content[:200].decode("utf-8", "replace")
