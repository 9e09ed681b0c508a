"""Who is told of which version."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from metalmark.server.update_offers import is_news, is_news_for_public
from metalmark.store import PublishedUpdate, UpdateAudience
from metalmark.wire import ProvedCapabilities, RunnerHello, RunnerMetadata


def update(channel: str = "stable") -> PublishedUpdate:
    return PublishedUpdate(
        audience=UpdateAudience.METALMARK,
        channel=channel,
        architecture="x86_64",
        version="2.0",
        checksum="a" * 64,
        size_bytes=1,
        published=datetime.now(UTC),
    )


@pytest.mark.parametrize(
    ("version", "checksum", "news"),
    [
        ("1.0", "b" * 64, True),
        ("2.0", "b" * 64, True),
        ("1.0", "a" * 64, False),
        ("1.0", None, True),
        ("2.0", None, False),
    ],
)
def test_the_checksum_decides_where_there_is_one(version: str, checksum: str | None, news: bool) -> None:
    capabilities = ProvedCapabilities(os="linux", architecture="x86_64", sandboxes=("qemu",))
    hello = RunnerHello(id=1, version=version, process="p", boot="b", capabilities=capabilities, checksum=checksum)
    assert is_news(update(), hello) is news


@pytest.mark.parametrize(
    ("channel", "version", "checksum", "news"),
    [
        ("stable", "1.0", None, True),
        ("stable", "3.0", None, True),
        ("stable", "2.0", "b" * 64, False),
        ("canary", "2.0", "b" * 64, True),
        ("canary", "1.0", "a" * 64, False),
        ("canary", "1.0", None, False),
    ],
)
def test_public_runners_compare_as_their_channel_does(
    channel: str, version: str, checksum: str | None, news: bool
) -> None:
    said = RunnerMetadata(os="linux", arch="x86_64", version=version, checksum=checksum)
    assert is_news_for_public(update(channel), said) is news
