"""Whose request it is, by address: the socket's, or what proxies that are trusted say of it."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from metalmark.server.config import Network

Address = IPv4Address | IPv6Address

_MAX_HOPS = 32


def parse_address(text: str) -> Address | None:
    """Return an address as a value, an IPv4 one in IPv6 clothes as IPv4; None when it is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_within(address: Address | None, networks: Sequence[Network]) -> bool:
    """Tell whether an address is in one of the networks."""
    return address is not None and any(address in network for network in networks)


def client_address(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """Return the client's address as text.

    Args:
        peer: The address of the socket's other end.
        forwarded_for: The values of all ``X-Forwarded-For`` headers in their order, joined by commas.
        trusted: Networks of the proxies that are believed. From the socket backwards, the first hop that is none of
            them is the client: what stands before it, the client itself may have written.
    """
    address = parse_address(peer)
    if address is None:
        return "unknown"
    for hop in reversed(forwarded_for.split(",")[-_MAX_HOPS:] if forwarded_for else []):
        if not is_within(address, trusted):
            break
        said = parse_address(hop)
        if said is None:
            break
        address = said
    return str(address)


def address_group(address: str) -> str:
    """Return what is counted as one caller: an IPv4 address, or the 64-bit network that one subscriber of IPv6 has."""
    parsed = parse_address(address)
    if isinstance(parsed, IPv6Address):
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return address
