from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.server.client_address import address_group, client_address, is_within, parse_address

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("198.51.100.1", "", "198.51.100.1"),
        ("198.51.100.1", "203.0.113.1", "198.51.100.1"),
        ("10.0.0.1", "203.0.113.1", "203.0.113.1"),
        # The client wrote the first one itself; the proxy added the second.
        ("10.0.0.1", "127.0.0.1, 203.0.113.1", "203.0.113.1"),
        ("10.0.0.1", "203.0.113.1, 10.2.2.2", "203.0.113.1"),
        ("10.0.0.1", "10.3.3.3, 10.2.2.2", "10.3.3.3"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.1:4711", "203.0.113.1"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:10.0.0.1", "203.0.113.1", "203.0.113.1"),
        ("fd00::1", "2001:db8::2", "2001:db8::2"),
        ("testclient", "203.0.113.1", "unknown"),
    ],
)
def test_the_client_is_the_first_hop_that_is_not_trusted(peer: str, forwarded: str, expected: str) -> None:
    assert client_address(peer, forwarded, TRUSTED) == expected


@given(st.text(max_size=60))
def test_without_trusted_proxies_headers_mean_nothing(forwarded: str) -> None:
    assert client_address("192.0.2.7", forwarded, ()) == "192.0.2.7"


@given(st.lists(st.text(max_size=20), max_size=5))
def test_whatever_comes_through_a_proxy_is_an_address(hops: list[str]) -> None:
    found = client_address("10.0.0.1", ",".join(hops), TRUSTED)
    assert parse_address(found) is not None


def test_one_subscriber_is_one_caller() -> None:
    assert address_group("192.0.2.7") == "192.0.2.7"
    assert address_group("2001:db8:1:2:3:4:5:6") == address_group("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert address_group("unknown") == "unknown"


def test_no_address_is_in_no_network() -> None:
    assert not is_within(None, TRUSTED)
    assert is_within(parse_address("10.255.0.1"), TRUSTED)
