"""Which proxy a server is reached through."""

from __future__ import annotations

from metalmark.client.settings import ConnectionSettings
from metalmark.model import InputError


def proxy_of(settings: ConnectionSettings) -> str | None:
    """Return the URL of the proxy for the server, None without one. This machine is never reached through one.

    Raises:
        InputError: The environment names a proxy of a kind that is not known.
    """
    address, named = settings.address, settings.proxies
    if address.is_local:
        return None
    for entry in named.get("no_proxy", "").lower().split(","):
        suffix = entry.strip().lstrip(".")
        if suffix == "*" or (suffix and (address.host == suffix or address.host.endswith(f".{suffix}"))):
            return None
    value = named.get(f"{address.scheme}_proxy") or named.get("all_proxy")
    if not value:
        return None
    proxy = value if "://" in value else f"http://{value}"
    if not proxy.startswith(("http://", "https://")):
        # Not repeated as a whole: it may hold a password.
        scheme = proxy.partition(":")[0]
        raise InputError(f"{address.scheme}_proxy", scheme, "only http and https proxies are known")
    return proxy
