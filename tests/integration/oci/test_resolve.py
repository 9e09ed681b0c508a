"""The digest of a reference, asked of a registry on loopback."""

from __future__ import annotations

import pytest

from metalmark.model import DigestMismatch, ImageNotFound, RegistryDenied, RegistryUnavailable
from metalmark.oci import Patience, Reference, RegistryAccess, resolve_reference
from metalmark.testing.images import FakeImage
from metalmark.testing.registry import Behaviour, StandInRegistry

pytestmark = pytest.mark.anyio
ACCESS = RegistryAccess(patience=Patience(attempts=2, first_wait_s=0.01, longest_wait_s=0.01))


async def test_a_tag_and_a_digest_are_resolved() -> None:
    with StandInRegistry() as registry:
        digest = registry.push(FakeImage(), "v1")
        for version in (":v1", f"@{digest}"):
            reference = Reference.parse(f"{registry.name}/app{version}")
            found = await resolve_reference(reference, ACCESS, timeout_s=10)
            assert (found.digest, found.plain_http) == (digest, True)


async def test_what_is_not_there_or_not_allowed_is_said_so() -> None:
    with StandInRegistry() as registry:
        registry.push(FakeImage(), "v1")
        with pytest.raises(ImageNotFound):
            await resolve_reference(Reference.parse(f"{registry.name}/app:v2"), ACCESS, timeout_s=10)
        registry.behaviour.forbidden = True
        with pytest.raises(RegistryDenied):
            await resolve_reference(Reference.parse(f"{registry.name}/app:v1"), ACCESS, timeout_s=10)


async def test_a_registry_that_lies_is_not_believed() -> None:
    with StandInRegistry(Behaviour(digest_header="sha256:" + "0" * 64)) as registry:
        registry.push(FakeImage(), "v1")
        with pytest.raises(DigestMismatch):
            await resolve_reference(Reference.parse(f"{registry.name}/app:v1"), ACCESS, timeout_s=10)


async def test_the_whole_of_it_has_a_deadline() -> None:
    slow = RegistryAccess(patience=Patience(attempts=100, first_wait_s=60, longest_wait_s=60))
    with StandInRegistry() as registry:
        registry.behaviour.failures[:] = [(500, {})] * 100
        with pytest.raises(RegistryUnavailable, match=r"0\.2 s"):
            await resolve_reference(Reference.parse(f"{registry.name}/app:v1"), slow, timeout_s=0.2)
