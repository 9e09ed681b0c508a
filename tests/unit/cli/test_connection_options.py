from __future__ import annotations

from pathlib import Path

import pytest

from metalmark.cli.connection_options import CONNECTION_FLAGS, connection_parameters, connection_settings
from metalmark.client import ConnectionSettings
from metalmark.model import InputError

KEY = "bencher_user_0123456789abcdefghijABCDEFGHIJ"
DEFAULTS = {parameter.name: parameter.default for parameter in connection_parameters()}


def settings(
    environment: dict[str, str], told: list[str] | None = None, home: Path | None = None, **given: object
) -> ConnectionSettings:
    where = {"METALMARK_HOME": str(home or "/nonexistent"), **environment}
    return connection_settings({**DEFAULTS, **given}, environment=where, warn=(told if told is not None else []).append)


def test_nothing_is_this_machine_without_a_credential() -> None:
    found = settings({})
    assert (str(found.address), found.credential, found.patience.attempts) == ("http://localhost:6610", None, 8)
    assert set(DEFAULTS) == CONNECTION_FLAGS


def test_flags_environment_and_file_add_up(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/client.toml").write_text('host = "https://c"\nca_file = "ca.pem"\nclient_certificate = "me"\n')
    found = settings({"BENCHER_API_KEY": KEY, "https_proxy": "p"}, home=tmp_path, timeout=3, retry_after=2)
    assert str(found.address) == "https://c"
    assert found.credential is not None
    assert found.trust.ca_file == tmp_path / "config/ca.pem"
    assert found.trust.client_certificate == tmp_path / "config/me"
    assert (found.patience.connect_s, found.patience.first_wait_s, found.proxies) == (3, 2, {"https_proxy": "p"})
    named = settings({"SSL_CLIENT_CERT": "/x.pem"}, home=tmp_path, ca_file=Path("/y.pem"), host="http://f")
    assert (str(named.address), named.trust.client_certificate) == ("http://f", Path("/x.pem"))
    assert named.trust.ca_file == Path("/y.pem")


@pytest.mark.parametrize(
    ("environment", "given", "told"),
    [
        ({}, {"key": KEY}, ["--key-file"]),
        ({}, {"token": "a.b.c"}, ["--key-file"]),
        ({"METALMARK_API_KEY": KEY}, {"host": "http://x"}, ["without encryption"]),
        ({"METALMARK_API_KEY": KEY}, {"host": "http://[::1]:1"}, []),
        ({"METALMARK_API_KEY": KEY}, {"host": "https://x"}, []),
        ({}, {"host": "http://x"}, []),
        ({}, {"host": "https://x", "insecure_host": True}, ["not checked"]),
    ],
)
def test_what_should_not_be_done_is_warned_of(
    environment: dict[str, str], given: dict[str, object], told: list[str]
) -> None:
    warned: list[str] = []
    settings(environment, warned, None, **given)
    assert len(warned) == len(told)
    assert all(part in line for part, line in zip(told, warned, strict=True))
    assert KEY not in "".join(warned)


def test_wrong_configuration_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/client.toml").write_text("hosts = 'x'")
    with pytest.raises(InputError, match="no such setting"):
        settings({}, home=tmp_path)
