"""Connections for a registry: http or https, whom to trust, and through which proxy."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import httpx

import metalmark
from metalmark.oci.access import RegistryAccess
from metalmark.system import in_thread


class Transport:
    """HTTP clients, direct and through the proxy that the environment names.

    Args:
        registry: ``host[:port]``, for the authorities that are trusted for it alone.
        access: Environment, patience and whether http was asked for.
    """

    def __init__(self, registry: str, access: RegistryAccess) -> None:
        self._registry = registry
        self._access = access
        self._direct: httpx.AsyncClient | None = None
        self._proxied: dict[str, httpx.AsyncClient] = {}
        """By the scheme of what is asked for."""

    async def start(self) -> None:
        """Make the clients; nothing is sent."""
        if self._direct is None:
            context = self._access.tls
            if context is None:
                context = await in_thread(_trust, self._registry, self._access)
            proxies = {scheme: _proxy(self._access.environment, scheme) for scheme in ("http", "https")}
            self._proxied = {scheme: self._client(context, proxy) for scheme, proxy in proxies.items() if proxy}
            self._direct = self._client(context, None)

    async def aclose(self) -> None:
        """Close all connections."""
        for client in (self._direct, *self._proxied.values()):
            if client is not None:
                await client.aclose()

    def client_for(self, url: httpx.URL) -> httpx.AsyncClient:
        """Return the client for an address. Loopback never goes through a proxy."""
        if self._direct is None:
            raise ValueError("the transport is not started")
        env = self._access.environment
        bypass = is_loopback(url.host) or _is_listed(url.host, env.get("no_proxy") or env.get("NO_PROXY") or "")
        return self._direct if bypass else self._proxied.get(url.scheme, self._direct)

    async def scheme(self, host: str, server: str) -> str:
        """Return ``https``, or ``http`` when it was asked for or a loopback registry does not speak TLS."""
        if self._access.plain_http is not None:
            return "http" if self._access.plain_http else "https"
        if not is_loopback(host):
            return "https"
        url = httpx.URL(f"https://{server}/v2/")
        try:
            async with self.client_for(url).stream("GET", url):
                return "https"
        except httpx.ConnectError as error:
            found = _tls_failure(error)
            return "https" if found is None or isinstance(found, ssl.SSLCertVerificationError) else "http"
        except (httpx.RemoteProtocolError, httpx.ReadError):
            return "http"
        except httpx.HTTPError:
            return "https"

    def _client(self, context: ssl.SSLContext, proxy: str | None) -> httpx.AsyncClient:
        patience = self._access.patience
        return httpx.AsyncClient(
            verify=context,
            proxy=proxy,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(patience.idle_s, connect=patience.connect_s, pool=None),
            limits=httpx.Limits(max_connections=self._access.parallel + 2),
            headers={"User-Agent": f"metalmark/{metalmark.__version__}", "Accept-Encoding": "identity"},
        )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its very name."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _tls_failure(error: BaseException) -> ssl.SSLError | None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause


def _proxy(env: Mapping[str, str], scheme: str) -> str | None:
    # HTTP_PROXY in capitals is what a web server's CGI makes of a request header named Proxy.
    names = ("http_proxy",) if scheme == "http" else ("https_proxy", "HTTPS_PROXY")
    for name in (*names, "all_proxy", "ALL_PROXY"):
        if value := env.get(name):
            return value if "://" in value else f"http://{value}"
    return None


def _is_listed(host: str, no_proxy: str) -> bool:
    for entry in no_proxy.split(","):
        suffix = entry.strip().lower().lstrip(".")
        if suffix == "*" or (suffix and (host == suffix or host.endswith(f".{suffix}"))):
            return True
    return False


def _trust(registry: str, access: RegistryAccess) -> ssl.SSLContext:
    """Trust what the system trusts, and the authorities that were put down for this registry."""
    context = ssl.create_default_context()
    named = access.environment.get("SSL_CERT_FILE")
    if named:
        context.load_verify_locations(named)
    paths = ssl.get_default_verify_paths()
    has_store = bool(paths.cafile) or (bool(paths.capath) and any(Path(paths.capath).iterdir()))
    if not named and not has_store:
        import certifi  # noqa: PLC0415 - only where the system has no store

        context.load_verify_locations(certifi.where())
    for folder in access.certs_folders:
        with suppress(OSError):
            for path in sorted((folder / registry).glob("*.crt")):
                context.load_verify_locations(path)
    return context
