"""The unit's text: what a hostile or odd value may not do, and what systemd is told."""

from configparser import RawConfigParser
from pathlib import Path

import pytest

from metalmark.client import RUNNER_CREDENTIAL_NAME
from metalmark.model import InputError
from metalmark.runner.service_unit import EXIT_REFUSED, ServiceUnit


def unit(**changes: object) -> ServiceUnit:
    values: dict[str, object] = {
        "root": Path("/opt/metalmark"),
        "state": Path("/var/lib/metalmark"),
        "cache": Path("/var/cache/metalmark"),
        "host": "https://bench.example.com",
        "runner": "rack-1",
        "key_file": Path("/etc/metalmark/runner.key"),
        "drain_timeout_s": 600,
    }
    return ServiceUnit(**(values | changes))  # type: ignore[arg-type]  # a test's table


def service(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_the_command_reads_the_key_from_systemd_alone() -> None:
    lines = service(unit().text())
    assert lines["ExecStart"] == ["/opt/metalmark/launch runner up --drain-timeout 600"]
    assert lines["LoadCredential"] == ["runner-key:/etc/metalmark/runner.key"]
    assert lines["Environment"] == ['"METALMARK_HOST=https://bench.example.com" "METALMARK_RUNNER=rack-1"']


def test_systemd_waits_longer_than_the_runner_drains() -> None:
    lines = service(unit(drain_timeout_s=3600).text())
    assert int(lines["TimeoutStopSec"][0]) > 3600
    assert lines["KillMode"] == ["mixed"]


def test_refused_credentials_are_not_tried_again() -> None:
    assert service(unit().text())["RestartPreventExitStatus"] == [str(EXIT_REFUSED)]


def test_the_credential_is_where_the_runner_looks_for_it() -> None:
    assert service(unit().text())["LoadCredential"][0].startswith(f"{RUNNER_CREDENTIAL_NAME}:")


def test_specifiers_variables_and_quotes_are_taken_literally() -> None:
    lines = service(unit(host="https://a/%h", options=("--name", 'a "$HOME" %i')).text())
    assert '"METALMARK_HOST=https://a/%%h"' in lines["Environment"][0]
    assert '"a \\"$$HOME\\" %%i"' in lines["ExecStart"][0]


@pytest.mark.parametrize("host", ["", "https://a\nExecStartPost=/bin/sh", "https://a\x00"])
def test_no_value_can_add_a_line(host: str) -> None:
    with pytest.raises(InputError):
        unit(host=host).text()


@pytest.mark.parametrize("path", ["relative/key", "/etc/a b", "/etc/a:b", "/etc/%n"])
def test_paths_that_a_unit_would_read_otherwise_are_refused(path: str) -> None:
    with pytest.raises(InputError, match="absolute path"):
        unit(key_file=Path(path)).text()


def test_nothing_of_it_becomes_a_filter_of_system_calls() -> None:
    filters = {
        "SystemCallFilter", "SystemCallArchitectures", "RestrictAddressFamilies", "RestrictNamespaces", "ProtectClock",
        "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "LockPersonality",
        "RestrictRealtime", "RestrictSUIDSGID", "MemoryDenyWriteExecute", "PrivateDevices", "NoNewPrivileges",
    }  # fmt: skip
    assert not filters & set(service(unit().text()))


def test_it_is_a_file_of_three_sections() -> None:
    parser = RawConfigParser(strict=False)
    parser.read_string(unit().text())
    assert parser.sections() == ["Unit", "Service", "Install"]
    assert "CAP_SYS_MODULE" not in parser["Service"]["CapabilityBoundingSet"]
