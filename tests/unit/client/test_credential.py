from __future__ import annotations

import io
from pathlib import Path

import pytest

from metalmark.client import CREDENTIAL_NAME, CredentialKind, credential_needed, find_credential, parse_key, parse_token
from metalmark.model import InputError

USER = "bencher_user_0123456789abcdefghijABCDEFGHIJ"
PROJECT = "bencher_run_0123456789abcdefghijABCDEFGHIJ"
RUNNER = "bencher_runner_0123456789abcdefghijABCDEFGHIJ"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"


@pytest.mark.parametrize(
    ("text", "kind"), [(USER, CredentialKind.USER_KEY), (f" {PROJECT}\n", CredentialKind.PROJECT_KEY)]
)
def test_key_is_read(text: str, kind: CredentialKind) -> None:
    key = parse_key(text, source="--key")
    assert (key.kind, key.header) == (kind, f"Bearer {text.strip()}")


@pytest.mark.parametrize("secret", [RUNNER, USER[:-1], USER + "x", USER.replace("0", "-"), JWT, "", "hunter2"])
def test_wrong_key_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_key(secret, source="--key")
    assert not secret or secret not in str(caught.value)
    assert ("--token" in caught.value.hint) is (secret == JWT)


@pytest.mark.parametrize("secret", [USER, "a.b", "a.b.c.d", "a..c", "ü.b.c"])
def test_wrong_token_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_token(secret, source="--token")
    assert secret not in str(caught.value)
    assert ("--key-file" in caught.value.hint) is (secret == USER)


def test_secret_is_in_no_repr() -> None:
    assert USER not in repr(parse_key(USER, source="--key"))


def test_flag_beats_environment_beats_systemd_beats_configuration(tmp_path: Path) -> None:
    def key(letter: str) -> str:
        return USER[:-1] + letter

    configured, given = tmp_path / "configured", tmp_path / "given"
    configured.write_text(key("c"))
    given.write_text(key("f"))
    (tmp_path / CREDENTIAL_NAME).write_text(key("s"))
    systemd = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    public = {**systemd, "BENCHER_API_KEY": key("b")}
    own = {**public, "METALMARK_API_KEY": key("m")}
    found = [
        find_credential(key=key("k"), environment=own, configured=configured),
        find_credential(key_file=given, environment=own, configured=configured),
        find_credential(token=JWT, environment=own, configured=configured),
        find_credential(environment=own, configured=configured),
        find_credential(environment=public, configured=configured),
        find_credential(environment=systemd, configured=configured),
        find_credential(environment={}, configured=configured),
        find_credential(environment={"METALMARK_API_KEY_FILE": str(given)}),
        find_credential(environment={"BENCHER_API_TOKEN": JWT}),
        find_credential(environment={"METALMARK_API_KEY": ""}),
    ]
    assert [each and each.secret[-1] for each in found] == ["k", "f", JWT[-1], "m", "b", "s", "c", "f", JWT[-1], None]


def test_two_in_the_same_way_are_refused() -> None:
    with pytest.raises(InputError, match="--token is given too"):
        find_credential(key=USER, token=JWT, environment={})
    with pytest.raises(InputError, match="BENCHER_API_TOKEN is set too") as caught:
        find_credential(environment={"BENCHER_API_KEY": USER, "BENCHER_API_TOKEN": JWT})
    assert USER not in str(caught.value)


def test_file_that_is_not_there_or_holds_no_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        find_credential(key_file=tmp_path / "nothing", environment={})
    (tmp_path / "file").write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match="no key"):
        find_credential(key_file=tmp_path / "file", environment={})


@pytest.mark.parametrize(("mode", "exposed"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_file_that_others_can_read_is_noticed(tmp_path: Path, mode: int, exposed: bool) -> None:
    path = tmp_path / "key"
    path.write_text(USER)
    path.chmod(mode)
    found = find_credential(key_file=path, environment={})
    assert found is not None
    assert ("chmod 600" in found.exposed) is exposed


def test_key_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{JWT}\n"))
    found = find_credential(key_file=Path("-"), environment={})
    assert found is not None
    assert (found.kind, found.secret) == (CredentialKind.TOKEN, JWT)


def test_missing_credential_says_how_to_give_one() -> None:
    assert "--key-file" in credential_needed().hint
