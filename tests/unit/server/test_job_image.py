"""Where a job's image is pulled from, as its runner is told."""

from __future__ import annotations

import pytest

from metalmark.model import Digest, InputError
from metalmark.oci import Reference, RegistryAccess, ResolvedReference
from metalmark.server import job_image
from metalmark.server.config import ServerConfig
from metalmark.server.image_reference import ForeignImage, OwnImage, parse_image

pytestmark = pytest.mark.anyio
DIGEST = Digest.of(b"manifest", "sha256")


@pytest.mark.parametrize(
    ("name", "plain_http", "url"),
    [
        ("ghcr.io", False, "https://ghcr.io/"),
        ("127.0.0.1:5000", True, "http://127.0.0.1:5000/"),
        ("localhost:5000", False, "https://localhost:5000/"),
    ],
)
async def test_a_registry_is_told_with_the_scheme_it_was_found_with(
    monkeypatch: pytest.MonkeyPatch, name: str, plain_http: bool, url: str
) -> None:
    async def found(reference: Reference, access: RegistryAccess, *, timeout_s: float) -> ResolvedReference:
        assert (reference.registry, access.plain_http) == (name, None)
        return ResolvedReference(digest=DIGEST, plain_http=plain_http)

    monkeypatch.setattr(job_image, "resolve_reference", found)
    image = ForeignImage(reference=Reference.parse(f"{name}/app:v1"))
    fixed = await job_image.fix_foreign_image(image)
    assert (fixed.registry_url, fixed.digest, fixed.own) == (url, DIGEST, False)


@pytest.mark.parametrize("text", ["widgets", "docker.io/library/widgets:latest"])
async def test_an_own_image_that_is_not_there_is_named_whole(text: str) -> None:
    image = parse_image(text, registry_url="https://metalmark.example.com/", allowed=())
    assert isinstance(image, OwnImage)
    with pytest.raises(InputError, match=r"'widgets:latest': .*no such tag"):
        await job_image.fix_own_image(None, image, None, ServerConfig())  # type: ignore[arg-type]  # nothing is looked up
