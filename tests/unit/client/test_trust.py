from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from metalmark.client import Trust
from metalmark.client.trust import tls_context, tls_failure
from metalmark.model import InputError


def test_certificates_are_checked_unless_that_is_waived() -> None:
    checked, waived = tls_context(Trust(), {}), tls_context(Trust(insecure=True), {})
    assert (checked.verify_mode, checked.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (waived.verify_mode, waived.check_hostname) == (ssl.CERT_NONE, False)


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_bytes(content)
    for trust in (Trust(ca_file=path), Trust(client_certificate=path)):
        with pytest.raises(InputError, match=r"file\.pem"):
            tls_context(trust, {})


def test_failure_of_tls_is_found_behind_other_errors() -> None:
    inner = ssl.SSLCertVerificationError("no")
    outer = RuntimeError("connect")
    outer.__context__ = ValueError("between")
    outer.__context__.__cause__ = inner
    assert tls_failure(outer) is inner
    assert tls_failure(RuntimeError("else")) is None
