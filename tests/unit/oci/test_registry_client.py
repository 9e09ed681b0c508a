from __future__ import annotations

import pytest

from metalmark.model import RegistryDenied, RegistryUnavailable
from metalmark.oci import Patience, Reference, RegistryAccess
from metalmark.oci.registry_answers import Hiccup
from metalmark.oci.registry_auth import Challenge
from metalmark.oci.registry_client import RegistryClient

pytestmark = pytest.mark.anyio


@pytest.fixture
def client() -> RegistryClient:
    patience = Patience(attempts=3, first_wait_s=0.001, longest_wait_s=0.002)
    return RegistryClient(Reference.parse("h.io/app"), RegistryAccess(patience=patience, certs_folders=()))


async def test_failures_without_progress_are_counted(client: RegistryClient) -> None:
    tries = 0

    async def fail() -> None:
        nonlocal tries
        tries += 1
        raise Hiccup("it broke", 1e9)  # what it asks us to wait is bounded

    with pytest.raises(RegistryUnavailable, match=r"h\.io: it broke \(tried 3 times\)"):
        await client.retry("layer", fail)
    assert tries == 3


async def test_progress_starts_the_count_anew(client: RegistryClient) -> None:
    done = 0

    async def crawl() -> str:
        nonlocal done
        done += 1
        if done < 20:
            raise Hiccup("it broke")
        return "whole"

    assert await client.retry("layer", crawl, lambda: done) == "whole"


async def test_other_errors_end_it_at_once(client: RegistryClient) -> None:
    async def deny() -> None:
        raise RegistryDenied("no")

    with pytest.raises(RegistryDenied):
        await client.retry("layer", deny)


@pytest.mark.parametrize("realm", ["http://h.io/token", "file:///etc/passwd", "", "//h.io/token"])
async def test_a_token_service_without_tls_gets_nothing(client: RegistryClient, realm: str) -> None:
    with pytest.raises(RegistryDenied, match="TLS"):
        await client._fetch_token(Challenge(scheme="bearer", parameters={"realm": realm}), None)


async def test_what_may_be_secret_in_an_address_is_not_shown(client: RegistryClient) -> None:
    challenge = Challenge(scheme="bearer", parameters={"realm": "http://user:hidden@t.io:81/token?signature=hidden"})
    with pytest.raises(RegistryDenied, match=r"http://t\.io:81/token") as caught:
        await client._fetch_token(challenge, None)
    assert "hidden" not in str(caught.value)
