from __future__ import annotations

import httpx

from metalmark.testing.images import FakeImage, FakeLayer
from metalmark.testing.registry import Behaviour, StandInRegistry

LAYER = FakeLayer.plain(b"0123456789")


def test_serves_what_was_pushed_and_remembers_who_asked() -> None:
    with StandInRegistry() as registry:
        image = FakeImage(layers=[LAYER])
        registry.push(image)
        manifest = httpx.get(f"{registry.url}/v2/app/manifests/latest", trust_env=False)
        assert manifest.headers["Docker-Content-Digest"] == str(image.manifest)
        url = f"{registry.url}/v2/app/blobs/{LAYER.diff_id}"
        rest = httpx.get(url, headers={"Range": "bytes=4-", "Authorization": "Basic eA=="}, trust_env=False)
        assert (rest.status_code, rest.content, rest.headers["Content-Range"]) == (206, b"456789", "bytes 4-9/10")
        assert httpx.get(f"{registry.url}/v2/app/manifests/no", trust_env=False).status_code == 404
        assert (registry.seen[1].range, registry.seen[1].authorization) == ("bytes=4-", "Basic eA==")


def test_misbehaves_as_told() -> None:
    with StandInRegistry(Behaviour(corrupt=True, failures=[(503, {"Retry-After": "1"})], bearer=False)) as registry:
        registry.push(FakeImage(layers=[LAYER]))
        url = f"{registry.url}/v2/app/blobs/{LAYER.diff_id}"
        assert httpx.get(url, trust_env=False).headers["Retry-After"] == "1"
        assert httpx.get(url, trust_env=False).content == b"0123456788"
