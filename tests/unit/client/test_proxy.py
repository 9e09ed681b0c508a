from __future__ import annotations

import pytest

from metalmark.client import ConnectionSettings, ServerAddress
from metalmark.client.proxy import proxy_of
from metalmark.model import InputError


@pytest.mark.parametrize(
    ("address", "proxies", "wanted"),
    [
        ("https://x.example.com", {"https_proxy": "p:1"}, "http://p:1"),
        ("http://x.example.com", {"https_proxy": "p:1"}, None),
        ("http://x.example.com", {"all_proxy": "http://p"}, "http://p"),
        ("https://x.example.com", {"https_proxy": "p", "no_proxy": "a, .Example.com"}, None),
        ("https://xexample.com", {"https_proxy": "p", "no_proxy": "example.com"}, "http://p"),
        ("https://localhost", {"https_proxy": "p"}, None),
        ("https://x", {"https_proxy": "p", "no_proxy": "*"}, None),
    ],
)
def test_proxy(address: str, proxies: dict[str, str], wanted: str | None) -> None:
    settings = ConnectionSettings(address=ServerAddress.parse(address), proxies=proxies)
    assert proxy_of(settings) == wanted


def test_proxy_of_an_unknown_kind_is_named_without_its_password() -> None:
    settings = ConnectionSettings(
        address=ServerAddress.parse("https://x"), proxies={"all_proxy": "socks5://a:secret@p"}
    )
    with pytest.raises(InputError, match="socks5") as caught:
        proxy_of(settings)
    assert "secret" not in str(caught.value)
