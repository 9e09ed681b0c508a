from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from metalmark.model import Digest, DigestMismatch
from metalmark.oci.incoming import IncomingBlob, LayerCheck
from metalmark.oci.registry import _to_skip

DATA = bytes(range(100))


@pytest.fixture
def blob(tmp_path: Path) -> IncomingBlob:
    digest = Digest.of(DATA)
    check = LayerCheck(digest, digest)
    incoming = IncomingBlob(
        target=tmp_path / "t", partial=tmp_path / "p", digest=digest, size_bytes=100, what="layer x", check=check
    )
    incoming.written = 40
    return incoming


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (206, {"Content-Range": "bytes 40-99/100"}, 0),
        (206, {"Content-Range": "bytes 40-99/*"}, 0),
        (200, {"Content-Length": "100"}, 40),
        (200, {}, 40),
    ],
)
def test_what_is_there_already_is_not_taken_twice(
    blob: IncomingBlob, status: int, headers: dict[str, str], expected: int
) -> None:
    assert _to_skip(httpx.Response(status, headers=headers), blob) == expected


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (206, {}),
        (206, {"Content-Range": "bytes 0-99/100"}),
        (206, {"Content-Range": "bytes 40-98/99"}),
        (206, {"Content-Range": "bytes 41-99/100"}),
        (206, {"Content-Range": "lines 40-99/100"}),
        (206, {"Content-Range": "bytes " + "4" * 50 + "-99/100"}),
        (200, {"Content-Length": "99"}),
        (200, {"Content-Length": "1" * 50}),
    ],
)
def test_an_answer_about_another_blob_is_refused(blob: IncomingBlob, status: int, headers: dict[str, str]) -> None:
    with pytest.raises(DigestMismatch, match="layer x"):
        _to_skip(httpx.Response(status, headers=headers), blob)
