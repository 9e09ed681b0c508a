from __future__ import annotations

import re
from pathlib import Path

import pytest

from metalmark.server.config import ServerConfig
from metalmark.server.config_rules import rule_faults, split_bind


@pytest.mark.parametrize(
    ("bind", "expected"),
    [
        ("127.0.0.1:6610", ("127.0.0.1", 6610)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:80", ("localhost", 80)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
    ],
)
def test_an_address_to_listen_on_has_a_host_and_a_port(bind: str, expected: tuple[str, int]) -> None:
    assert split_bind(bind) == expected


@pytest.mark.parametrize("bind", ["6610", ":6610", "host:", "host:x", "host:65536", "::1:80", "[::1:80", "host:٣"])
def test_anything_else_is_refused(bind: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(repr(bind))}( is not|: an IPv6)"):
        split_bind(bind)


def faults(document: dict[str, object]) -> set[str]:
    return {name for name, _ in rule_faults(ServerConfig.model_validate(document))}


def test_keys_that_go_together(tmp_path: Path) -> None:
    (tmp_path / "pem").write_text("x")
    assert faults({"tls": {"certificate_file": tmp_path / "pem"}}) == {"tls"}
    assert faults({"smtp": {"hostname": "mail"}}) == {"smtp.from_email"}
    assert faults({"smtp": {"password_file": tmp_path / "pem"}}) == {"smtp.username"}
    assert faults({"jobs": {"max_duration_s": 4259}}) == {"jobs.max_duration_s"}
    assert faults({"jobs": {"max_duration_s": 4260}}) == set()
    assert faults({"server": {"message_max_bytes": 2048}}) == {"server.message_max_bytes"}
    assert faults({"tls": {"certificate_file": tmp_path / "pem", "key_file": tmp_path / "pem"}}) == set()


def test_files_have_to_be_readable(tmp_path: Path) -> None:
    document = {"tls": {"certificate_file": tmp_path / "no", "key_file": tmp_path / "no"}}
    assert faults(document) == {"tls.certificate_file", "tls.key_file"}


def test_places_have_to_be_of_a_known_kind() -> None:
    assert faults({"database": "mysql://x", "storage": "ftp://x"}) == {"database", "storage"}
    assert faults({"database": "postgresql://u@h/d", "storage": "s3://bucket/prefix"}) == set()
    assert faults({"database": "postgresql://[", "storage": "s3://["}) == {"database", "storage"}
    assert faults({"registry": {"allowed": ["https://docker.io"]}}) == {"registry.allowed"}
