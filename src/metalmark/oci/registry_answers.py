"""What registries answer: bodies read within bounds, error documents, failures of the connection."""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

from metalmark.model import NotAnImage, RegistryDenied
from metalmark.oci.documents import Node, shown
from metalmark.system import realtime_ns


class Hiccup(Exception):
    """A failure that another try may mend. Internal: after the last try it becomes `RegistryUnavailable`.

    Args:
        found: What happened.
        wait_s: What the registry asked us to wait, if it did.
    """

    def __init__(self, found: str, wait_s: float | None = None) -> None:
        super().__init__(found)
        self.wait_s = wait_s


@dataclass(frozen=True)
class http_errors_told:  # noqa: N801 - reads as the context manager that it is
    """Turns what the HTTP library raises into `Hiccup`, and an untrusted certificate into `RegistryDenied`."""

    registry: str

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if not isinstance(error, httpx.HTTPError | httpx.InvalidURL | httpx.StreamError):
            return
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise RegistryDenied(
                    f"the certificate of {self.registry} is not trusted",
                    why=cause.verify_message,
                    hint=f"put its authority into /etc/containers/certs.d/{self.registry}/ca.crt,"
                    " or name it in SSL_CERT_FILE",
                ) from error
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, httpx.TimeoutException):
            raise Hiccup("it did not answer in time") from error
        raise Hiccup(str(error) or type(error).__name__) from error


async def read_bounded(response: httpx.Response, limit: int, *, strict: bool = True) -> bytes:
    """Return the body of an answer.

    Args:
        response: The answer.
        limit: The most bytes that are read.
        strict: Whether more than that is an error, or cut off.

    Raises:
        NotAnImage: There is more.
    """
    data = bytearray()
    async for piece in response.aiter_raw():
        data += piece
        if len(data) > limit:
            if strict:
                raise NotAnImage(f"{response.url.host} answered with more than {limit} bytes")
            return bytes(data[:limit])
    return bytes(data)


def said(body: bytes) -> str:
    """Return the first message of a registry's error document, made fit for a terminal."""
    with suppress(NotAnImage):
        for error in Node.parse(body, what="the answer").get("errors").items(16):
            return f": {shown(error.get('message').text('') or error.get('code').text(''))}"
    return ""


def retry_after(response: httpx.Response) -> float | None:
    """Return the seconds that a registry asks us to wait, or None."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    with suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - realtime_ns() / 1e9)
    return None
