from __future__ import annotations

import pytest
from pydantic import ValidationError

from metalmark.server.config import ServerConfig


def test_a_new_server_is_closed_to_strangers_and_listens_to_this_machine_alone() -> None:
    config = ServerConfig()
    assert config.server.bind == "127.0.0.1:6610"
    assert not config.auth.anonymous
    assert config.auth.signup == "invite"
    assert config.server.trusted_proxies == ()
    assert config.registry.allowed == ()


def test_addresses_are_derived_from_one_another() -> None:
    config = ServerConfig().settled(6611)
    assert config.url == config.console_url == config.registry_url == config.issuer == "http://localhost:6611/"
    given = {"server": {"url": "https://metalmark.example.com"}, "console": {"url": "https://console.example.com/x"}}
    config = ServerConfig.model_validate(given).settled(6611)
    assert config.url == config.registry_url == "https://metalmark.example.com/"
    assert config.console_url == config.issuer == "https://console.example.com/x/"


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError):
        ServerConfig.model_validate({"server": {"bnd": "x"}})
