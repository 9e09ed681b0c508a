from __future__ import annotations

from pathlib import Path

import pytest

from metalmark.client import (
    ClientConfiguration,
    ConnectionSettings,
    Patience,
    ServerAddress,
    Trust,
    find_address,
    proxies_of,
    read_configuration,
)
from metalmark.model import InputError


def test_pauses_double_to_a_bound_and_a_server_can_ask_for_longer_within_it() -> None:
    patience = Patience(first_wait_s=1, longest_wait_s=30)
    assert [patience.wait_s(failures) for failures in range(1, 9)] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert [patience.wait_s(1, asked_s=asked) for asked in (0.5, 7, 3600)] == [1, 7, 30]
    assert patience.wait_s(65535) == 30
    assert Patience(first_wait_s=10, longest_wait_s=2).wait_s(1) == 2


def test_address_of_flag_environment_configuration_and_none() -> None:
    public = {"BENCHER_HOST": "http://b"}
    own = {**public, "METALMARK_HOST": "http://m"}
    found = [
        find_address(host="http://f", environment=own, configured="http://c"),
        find_address(environment=own, configured="http://c"),
        find_address(environment=public, configured="http://c"),
        find_address(environment={"METALMARK_HOST": ""}, configured="http://c"),
        find_address(environment={}),
    ]
    assert [str(each) for each in found] == ["http://f", "http://m", "http://b", "http://c", "http://localhost:6610"]


def test_wrong_address_names_the_variable() -> None:
    with pytest.raises(InputError) as caught:
        find_address(environment={"BENCHER_HOST": "nothing"})
    assert caught.value.field == "BENCHER_HOST"


def test_configuration_is_read_and_its_paths_start_at_it(tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    assert read_configuration(path) == ClientConfiguration()
    path.write_text('host = "http://x"\nkey_file = "key"\nca_file = "/etc/ca.pem"\n')
    assert read_configuration(path) == ClientConfiguration(
        host="http://x", key_file=tmp_path / "key", ca_file=Path("/etc/ca.pem")
    )


@pytest.mark.parametrize("text", ["host = 1", 'host = ""', "key = 'k'", "host", "\x00"])
def test_wrong_configuration_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "client.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"client\.toml"):
        read_configuration(path)
    with pytest.raises(InputError):
        read_configuration(tmp_path)


def test_proxies_are_those_of_curl() -> None:
    found = proxies_of({"HTTP_PROXY": "a", "HTTPS_PROXY": "b", "https_proxy": "c", "NO_PROXY": "d", "all_proxy": ""})
    assert found == {"https_proxy": "c", "no_proxy": "d"}


@pytest.mark.parametrize(
    ("address", "insecure", "word"),
    [
        ("https://bench.example.com", False, ""),
        ("https://bench.example.com", True, "--insecure-host"),
        ("https://127.0.0.1", True, "--insecure-host"),
        ("http://bench.example.com", False, "http://"),
        ("http://10.0.0.1:6610", False, "http://"),
        ("http://localhost.example.com", False, "http://"),
        ("http://127.0.0.1:6610", False, ""),
        ("http://[::1]:6610", False, ""),
        ("http://localhost:6610", False, ""),
    ],
)
def test_who_could_speak_for_the_server(address: str, insecure: bool, word: str) -> None:
    settings = ConnectionSettings(address=ServerAddress.parse(address), trust=Trust(insecure=insecure))
    assert word in settings.why_unproved
    assert bool(settings.why_unproved) == bool(word)
