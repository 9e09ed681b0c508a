from __future__ import annotations

import pytest
from starlette.requests import HTTPConnection

from metalmark.oci.registry_auth import parse_challenges
from metalmark.server.config import ServerConfig
from metalmark.server.registry_challenge import registry_challenge, remember_scope
from metalmark.server.registry_scope import Action, RepositoryScope


def connection(host: str = "10.0.0.5:6610", scheme: str = "http") -> HTTPConnection:
    return HTTPConnection({"type": "http", "scheme": scheme, "headers": [(b"host", host.encode())], "state": {}})


def config(**sections: object) -> ServerConfig:
    return ServerConfig.model_validate(sections).settled(6610)


def test_it_names_the_token_service_and_what_to_ask_it_for() -> None:
    asked = connection()
    remember_scope(asked, RepositoryScope.wanted("adder/app", Action.PUSH))
    (challenge,) = parse_challenges(registry_challenge(asked, config(registry={"url": "https://images.example/"})))
    assert challenge.scheme == "bearer"
    assert challenge.parameters == {
        "realm": "https://images.example/v0/auth/oci/token",
        "service": "images.example",
        "scope": "repository:adder/app:pull,push",
    }


def test_a_token_that_was_too_narrow_is_told_so() -> None:
    asked = connection()
    remember_scope(asked, RepositoryScope.wanted("a", Action.PULL), narrow=True)
    assert registry_challenge(asked, config()).endswith('scope="repository:a:pull",error="insufficient_scope"')


@pytest.mark.parametrize(
    ("sections", "host", "realm"),
    [
        ({}, "10.0.0.5:6610", "http://10.0.0.5:6610/"),
        ({}, "[fe80::1]:6610", "http://[fe80::1]:6610/"),
        ({"server": {"url": "https://bench.example/"}}, "10.0.0.5", "https://bench.example/"),
        ({"registry": {"url": "http://localhost:5000"}}, "10.0.0.5", "http://localhost:5000/"),
        ({}, 'evil"x', "http://localhost:6610/"),
        ({}, "evil.example/path?", "http://localhost:6610/"),
        ({}, "", "http://localhost:6610/"),
    ],
)
def test_where_no_address_is_configured_it_is_the_one_that_the_client_used(
    sections: dict[str, object], host: str, realm: str
) -> None:
    challenge = registry_challenge(connection(host), config(**sections))
    assert challenge.startswith(f'Bearer realm="{realm}v0/auth/oci/token",')
