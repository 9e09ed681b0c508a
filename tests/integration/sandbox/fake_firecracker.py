"""A program that behaves like Firecracker towards its user, and boots nothing.

It takes the same arguments, serves the API on the unix socket, refuses what the published description does not allow
and what comes in the wrong order, names its vCPU threads alike, and then plays a guest whose agent connects over vsock.
``FAKE_FIRECRACKER`` in the environment chooses a fault.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import socket
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from metalmark.wire import (
    PROTOCOL,
    ClockTag,
    ExitTag,
    Frame,
    FrameDecoder,
    HelloTag,
    Kind,
    ReadyTag,
    encode,
    pack,
)

API = yaml.safe_load((Path(__file__).parents[2] / "data/firecracker-api.yaml").read_text(encoding="utf-8"))
FAULT = os.environ.get("FAKE_FIRECRACKER", "")
STATE: dict[str, Any] = {"id": "", "drives": {}, "state": "Not started"}


class Handler(BaseHTTPRequestHandler):
    """The API."""

    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class has it so
        del format, args

    def do_GET(self) -> None:
        if FAULT == "silent":
            time.sleep(60)
        if FAULT == "huge":
            self.answer(200, b'{"x": "' + b"y" * 10_000_000 + b'"}')
            return
        info = {"app_name": "Firecracker", "id": STATE["id"], "state": STATE["state"], "vmm_version": "1.15.1"}
        self.answer(200, json.dumps(info).encode())

    def do_PUT(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with (Path.cwd() / "requests.jsonl").open("a") as log:
            log.write(json.dumps([self.path, body]) + "\n")
        try:
            validate(self.path, body)
            apply(self.path, body)
        except (ValueError, jsonschema.ValidationError) as error:
            self.answer(400, json.dumps({"fault_message": str(error).splitlines()[0]}).encode())
            return
        self.answer(204, b"")

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def validate(path: str, body: dict[str, Any]) -> None:
    pattern = "/drives/{drive_id}" if path.startswith("/drives/") else path
    if pattern not in API["paths"]:
        raise ValueError(f"Invalid request method and/or path: PUT {path}")
    (parameter,) = [one for one in API["paths"][pattern]["put"]["parameters"] if one["in"] == "body"]
    schema = dict(API["definitions"][parameter["schema"]["$ref"].rpartition("/")[2]])
    schema.update(additionalProperties=False, definitions=API["definitions"])
    jsonschema.validate(body, schema)


def apply(path: str, body: dict[str, Any]) -> None:
    if STATE["state"] != "Not started":
        raise ValueError("The requested operation is not supported after starting the microVM.")
    if path.startswith("/drives/"):
        if path != f"/drives/{body['drive_id']}":
            raise ValueError("The id from the path does not match the id from the body!")
        os.close(os.open(body["path_on_host"], os.O_RDONLY if body["is_read_only"] else os.O_RDWR))
        STATE["drives"][body["drive_id"]] = body
    elif path == "/boot-source":
        if FAULT == "refuse":
            raise ValueError("The kernel file cannot be opened")
        for name in ("kernel_image_path", "initrd_path"):
            os.close(os.open(body[name], os.O_RDONLY))
    elif path == "/vsock" and Path(body["uds_path"]).exists():
        raise ValueError("Address in use")
    STATE[path] = body
    if path == "/actions" and body["action_type"] == "InstanceStart":
        start()


def start() -> None:
    if "/boot-source" not in STATE:
        raise ValueError("Cannot start microvm without kernel configuration.")
    if FAULT == "die":
        sys.stderr.write("KVM internal error\n")
        sys.stderr.flush()
        os._exit(148)
    STATE["state"] = "Running"
    for number in range(STATE["/machine-config"]["vcpu_count"]):
        threading.Thread(target=vcpu, args=(number,), daemon=True).start()
    if FAULT != "no-agent":
        threading.Thread(target=guest, daemon=True).start()


def vcpu(number: int) -> None:
    ctypes.CDLL(None).prctl(15, f"fc_vcpu {number}".encode(), 0, 0, 0)
    time.sleep(3600)


def guest() -> None:
    arguments = STATE["/boot-source"]["boot_args"]
    port = int(re.search(r"metalmark\.vsock=(\d+)", arguments)[1])  # type: ignore[index]
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(f"{STATE['/vsock']['uds_path']}_{port}")
    now = time.monotonic_ns()
    hello = [
        (HelloTag.PROTOCOL, PROTOCOL), (HelloTag.ARCHITECTURE, b"x86_64"), (HelloTag.KERNEL, b"6.1.177-fake"),
        (HelloTag.MONOTONIC_NS, now), (HelloTag.AGENT, b"fake"),
    ]  # fmt: skip
    channel.sendall(encode(Frame(kind=Kind.HELLO, stream=0, payload=pack(hello))))
    decoder = FrameDecoder()
    while data := channel.recv(65536):
        for frame in decoder.feed(data):
            answer(channel, frame)


def answer(channel: socket.socket, frame: Frame) -> None:
    now = time.monotonic_ns()

    def say(kind: Kind, stream: int, payload: bytes = b"") -> None:
        channel.sendall(encode(Frame(kind=kind, stream=stream, payload=payload)))

    if frame.kind == Kind.SETUP:
        (Path.cwd() / "setup.bin").write_bytes(frame.payload)
        say(Kind.READY, 0, pack([(ReadyTag.MONOTONIC_NS, now), (ReadyTag.MEMORY_MAX_BYTES, 1 << 28)]))
    elif frame.kind == Kind.CLOCK:
        say(Kind.CLOCK_IS, 0, pack([(ClockTag.MONOTONIC_NS, now), (ClockTag.REALTIME_NS, time.time_ns())]))
    elif frame.kind == Kind.EXEC:
        say(Kind.STARTED, frame.stream)
        say(Kind.STDOUT, frame.stream, b"from a fake\n")
        say(Kind.EXITED, frame.stream, pack([(ExitTag.ENDING, 0), (ExitTag.CODE, 3), (ExitTag.STDOUT_BYTES, 12)]))
    elif frame.kind == Kind.POWEROFF:
        os._exit(0)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """An HTTP server on a unix socket."""

    daemon_threads = True

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, _ = self.socket.accept()
        return connection, ("unix", 0)


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--api-sock", required=True)
    parser.add_argument("--id", required=True)
    parser.add_argument("--level", choices=["Error", "Warning", "Info", "Debug", "Trace", "Off"])
    arguments = parser.parse_args()
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", arguments.id):
        parser.error("Invalid instance ID")
    STATE["id"] = arguments.id
    Server(arguments.api_sock, Handler).serve_forever()


if __name__ == "__main__":
    main()
