"""A mail server that keeps what it is sent, for tests to read."""

from __future__ import annotations

import email
import email.policy
import re
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any


@dataclass(kw_only=True)
class Mailbox:
    """What a mail server was sent, and what it says."""

    port: int = 0
    refused: bool = False
    """Whether it takes no recipient."""
    mails: list[EmailMessage] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    """Every line of its clients."""

    @property
    def settings(self) -> dict[str, Any]:
        """The section of a server's configuration that sends mails here."""
        return {"hostname": "127.0.0.1", "port": self.port, "security": "none", "from_email": "bench@example.com"}

    def token(self, to: str, kind: str = "Confirmation") -> str:
        """The token of the last mail to an address."""
        for mail in reversed(self.mails):
            if mail["To"] == to and (
                match := re.search(rf"^{kind} Token: (\S+)\s*$", mail.get_content(), re.MULTILINE)
            ):
                return match[1]
        raise AssertionError(f"there is no {kind} for {to}")


class _Session(socketserver.StreamRequestHandler):
    mailbox: Mailbox

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def handle(self) -> None:
        self.say("220 mailbox")
        while line := self.rfile.readline().decode().strip():
            self.mailbox.log.append(line)
            verb = line.split()[0].upper()
            if verb == "DATA":
                self.say("354 go on")
                self.keep()
            elif verb == "RCPT" and self.mailbox.refused:
                self.say("550 no such mailbox")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 mailbox")

    def keep(self) -> None:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b"."))
        message = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.mailbox.mails.append(message)
        self.say("250 kept")


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@contextmanager
def running_mailbox() -> Iterator[Mailbox]:
    """Run a mail server on a free port."""
    mailbox = Mailbox()
    handler = type("Session", (_Session,), {"mailbox": mailbox})
    with _Server(("127.0.0.1", 0), handler) as server:
        mailbox.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield mailbox
        finally:
            server.shutdown()
            thread.join()
