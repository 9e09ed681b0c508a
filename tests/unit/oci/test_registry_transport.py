from __future__ import annotations

import httpx
import pytest

from metalmark.oci import RegistryAccess
from metalmark.oci.registry_transport import Transport, is_loopback

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("[::1]", True), ("::1", True),
        ("localhost.example", False), ("127.0.0.1.example", False), ("10.0.0.1", False), ("", False),
    ],
)  # fmt: skip
def test_loopback_is_told_by_the_name_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("host", "asked", "scheme"),
    [("h.io", None, "https"), ("h.io", True, "http"), ("10.0.0.1", None, "https"), ("127.0.0.1", False, "https")],
)
async def test_plain_http_must_be_asked_for_beyond_loopback(host: str, asked: bool | None, scheme: str) -> None:
    assert await Transport(host, RegistryAccess(plain_http=asked, certs_folders=())).scheme(host, host) == scheme


async def test_a_proxy_is_used_but_for_loopback_and_listed_hosts() -> None:
    environment = {"HTTPS_PROXY": "proxy.example:3128", "NO_PROXY": "inner.example, .corp"}
    transport = Transport("h.io", RegistryAccess(environment=environment, certs_folders=()))
    await transport.start()
    try:
        direct = transport.client_for(httpx.URL("https://127.0.0.1/"))
        for host, is_direct in (
            ("h.io", False), ("inner.example", True), ("a.inner.example", True), ("x.corp", True), ("xcorp", False),
            ("localhost", True),
        ):  # fmt: skip
            assert (transport.client_for(httpx.URL(f"https://{host}/")) is direct) is is_direct, host
    finally:
        await transport.aclose()


@pytest.mark.parametrize(
    ("environment", "proxied"),
    [
        ({"https_proxy": "http://p:1"}, {"https"}),
        ({"http_proxy": "http://p:1"}, {"http"}),
        ({"HTTP_PROXY": "http://p:1"}, set()),
        ({"ALL_PROXY": "p:1"}, {"http", "https"}),
        ({"http_proxy": "", "all_proxy": ""}, set()),
    ],
)
async def test_each_scheme_has_its_proxy(environment: dict[str, str], proxied: set[str]) -> None:
    transport = Transport("h.io", RegistryAccess(environment=environment, certs_folders=()))
    await transport.start()
    try:
        direct = transport.client_for(httpx.URL("https://127.0.0.1/"))
        seen = {
            scheme for scheme in ("http", "https") if transport.client_for(httpx.URL(f"{scheme}://h.io/")) is not direct
        }
        assert seen == proxied
    finally:
        await transport.aclose()
