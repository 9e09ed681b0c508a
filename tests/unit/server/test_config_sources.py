from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metalmark.model import InputError
from metalmark.server.config import ServerConfig, SignUp
from metalmark.server.config_sources import ConfigFaults, config_keys, read_config


def faults_of(**given: object) -> dict[str, str]:
    with pytest.raises(ConfigFaults) as refused:
        read_config(**{"file": None, "environment": {}, **given})  # type: ignore[arg-type]
    return {fault.where: fault.why for fault in refused.value.faults}


def test_without_anything_it_is_the_defaults() -> None:
    assert read_config(file=None, environment={"PATH": "/bin", "METALMARK_HOME": "/x"}) == ServerConfig()


def test_flags_beat_the_environment_and_that_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('database = "sqlite:////f"\n[server]\nbind = "127.0.0.1:1"\n[auth]\nsignup = "open"\n')
    environment = {"METALMARK_SERVER_BIND": "127.0.0.1:2", "METALMARK_DATABASE": "sqlite:////e"}
    read = read_config(file=file, environment=environment, flags={"server.bind": "127.0.0.1:3", "database": None})
    assert (read.server.bind, read.database, read.auth.signup) == ("127.0.0.1:3", "sqlite:////e", SignUp.OPEN)


def test_a_value_that_is_wrong_is_shown_unless_it_may_hold_a_password() -> None:
    faults = faults_of(environment={"METALMARK_AUTH_SIGNUP": "maybe"}, flags={"database": "mysql://me:hunter2@x/y"})
    assert faults["auth.signup (METALMARK_AUTH_SIGNUP)"].startswith("'maybe': ")
    assert "hunter2" not in faults["database (--database)"]


def test_lists_of_the_environment_are_separated_by_commas() -> None:
    read = read_config(
        file=None,
        environment={
            "METALMARK_REGISTRY_ALLOWED": "docker.io, ghcr.io:443,",
            "METALMARK_SERVER_TRUSTED_PROXIES": "10.0.0.0/8",
        },
    )
    assert read.registry.allowed == ("docker.io", "ghcr.io:443")
    assert [str(network) for network in read.server.trusted_proxies] == ["10.0.0.0/8"]


def test_all_errors_are_told_at_once_with_where_they_come_from(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('[server]\nbnd = "x"\nmessage_max_bytes = "many"\n[smtp]\nhostname = "mail.example.com"\n')
    faults = faults_of(
        file=file,
        environment={"METALMARK_AUTH_SIGNUP": "maybe", "METALMARK_JOBS_MAX_PENDNG_S": "3"},
        flags={"server.bind": "nowhere", "database": "oracle://x"},
    )
    assert set(faults) == {
        f"server.bnd ({file})",
        f"server.message_max_bytes ({file})",
        "smtp.from_email",
        "auth.signup (METALMARK_AUTH_SIGNUP)",
        "METALMARK_JOBS_MAX_PENDNG_S",
        "server.bind (--bind)",
        "database (--database)",
    }
    assert "server.bind is near" in faults[f"server.bnd ({file})"]
    assert "METALMARK_JOBS_MAX_PENDING_S is near" in faults["METALMARK_JOBS_MAX_PENDNG_S"]


def test_a_file_that_is_none_is_an_error(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert "cannot be read" in faults_of(file=missing)[str(missing)]
    broken = tmp_path / "broken.toml"
    broken.write_bytes(b"\xff\xfe")
    assert "not TOML" in faults_of(file=broken)[str(broken)]
    value = tmp_path / "value.toml"
    value.write_text("server = 3\n")
    assert faults_of(file=value) == {f"server ({value})": "this is a section, not a value"}


def test_a_password_in_an_address_is_not_repeated() -> None:
    faults = faults_of(environment={"METALMARK_DATABASE": "mysql://me:hunter2@host/x"})
    assert "hunter2" not in str(faults)


def test_an_unknown_flag_is_the_callers_mistake() -> None:
    with pytest.raises(InputError):
        read_config(file=None, environment={}, flags={"server.bnd": "x"})


def test_every_key_has_a_variable_of_its_own_and_says_what_it_is_for() -> None:
    keys = list(config_keys())
    assert len({key.variable for key in keys}) == len(keys)
    assert [key.name for key in keys if not key.field.description] == []


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from([key.variable for key in config_keys()]), st.text(max_size=12), max_size=6))
def test_any_environment_is_a_configuration_or_says_what_is_wrong(environment: dict[str, str]) -> None:
    try:
        read_config(file=None, environment=environment)
    except ConfigFaults as error:
        assert error.faults
