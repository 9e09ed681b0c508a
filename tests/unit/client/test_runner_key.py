from __future__ import annotations

import io
from pathlib import Path

import pytest

from metalmark.client import RUNNER_CREDENTIAL_NAME, CredentialKind, find_runner_key, parse_runner_key
from metalmark.model import InputError

KEY = "bencher_runner_0123456789abcdefghijABCDEFGHIJ"
OTHER = "bencher_runner_9123456789abcdefghijABCDEFGHIJ"
USER = "bencher_user_0123456789abcdefghijABCDEFGHIJ"


def test_key_is_read_and_not_shown() -> None:
    found = parse_runner_key(f" {KEY}\n", source="--key")
    assert (found.kind, found.secret, found.header) == (CredentialKind.RUNNER_KEY, KEY, f"Bearer {KEY}")
    assert KEY not in repr(found)


@pytest.mark.parametrize("text", [USER, KEY[:-1], KEY + "x", "", "hunter2"])
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_runner_key(text, source="--key")
    assert not text or text not in str(caught.value)


def test_flag_beats_environment_beats_systemd(tmp_path: Path) -> None:
    (tmp_path / RUNNER_CREDENTIAL_NAME).write_text(OTHER)
    (tmp_path / RUNNER_CREDENTIAL_NAME).chmod(0o600)
    environment = {"METALMARK_RUNNER_KEY": OTHER, "CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert find_runner_key(key=KEY, environment=environment).secret == KEY
    assert "--key-file" in find_runner_key(key=KEY, environment={}).exposed
    named = {"METALMARK_RUNNER_KEY": KEY, "BENCHER_RUNNER_KEY": OTHER, "CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert find_runner_key(environment=named).secret == KEY
    assert find_runner_key(environment={"BENCHER_RUNNER_KEY": KEY}).secret == KEY
    assert find_runner_key(environment={"CREDENTIALS_DIRECTORY": str(tmp_path)}).secret == OTHER


def test_key_file_that_others_can_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    path.chmod(0o644)
    assert "chmod 600" in find_runner_key(key_file=path, environment={}).exposed
    path.chmod(0o600)
    assert find_runner_key(environment={"METALMARK_RUNNER_KEY_FILE": str(path)}).exposed == ""
    monkeypatch.setattr("sys.stdin", io.StringIO(KEY))
    assert find_runner_key(key_file=Path("-"), environment={}).secret == KEY


def test_two_keys_none_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--key-file is given too"):
        find_runner_key(key=KEY, key_file=tmp_path / "key", environment={})
    with pytest.raises(InputError, match="is set too"):
        find_runner_key(environment={"METALMARK_RUNNER_KEY": KEY, "METALMARK_RUNNER_KEY_FILE": "x"})
    with pytest.raises(InputError, match="No such file"):
        find_runner_key(key_file=tmp_path / "key", environment={})
    with pytest.raises(InputError, match="--key-file is missing") as caught:
        find_runner_key(environment={})
    assert "METALMARK_RUNNER_KEY" in caught.value.hint
