from __future__ import annotations

import pytest

from metalmark.server.passwords import without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "postgresql://me:hunter2@host:5432/name?sslmode=require",
            "postgresql://me:********@host:5432/name?sslmode=require",
        ),
        ("postgresql://me:hunt@er2@host/name", "postgresql://me:********@host/name"),
        ("postgresql://me@host/name", "postgresql://me@host/name"),
        ("sqlite:////var/lib/x.db", "sqlite:////var/lib/x.db"),
        ("/var/lib/blobs", "/var/lib/blobs"),
    ],
)
def test_the_password_alone_is_hidden(url: str, shown: str) -> None:
    assert without_password(url) == shown
