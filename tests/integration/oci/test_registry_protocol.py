"""The registry client against a stand-in: challenges, tokens, redirects, and where credentials go."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from metalmark.model import DigestMismatch, ImageNotFound, InputError, Platform, RegistryDenied
from metalmark.oci import ImageCache, Patience, RegistryAccess, ResolvedImage, parse_source, pull
from metalmark.testing.images import FakeImage, FakeLayer, tar_of
from metalmark.testing.registry import Behaviour, StandInRegistry

pytestmark = pytest.mark.anyio
AMD64 = Platform("linux", "amd64")
IMAGE = FakeImage(layers=[FakeLayer.gzipped(tar_of({f"{n}": os.urandom(3000)})) for n in range(3)])
QUICK = Patience(connect_s=2, idle_s=0.5, attempts=3, first_wait_s=0.01, longest_wait_s=0.05)


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return ImageCache(tmp_path / "cache")


async def take(
    registry: StandInRegistry, cache: ImageCache, name: str = "app:latest", **access: object
) -> ResolvedImage:
    chosen = RegistryAccess(patience=QUICK, certs_folders=(), **access)  # type: ignore[arg-type]
    return await pull(parse_source(f"{registry.name}/{name}"), cache=cache, platform=AMD64, access=chosen)


def authfile(folder: Path, **content: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(content))
    return path


def basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


async def test_anonymous(cache: ImageCache) -> None:
    with StandInRegistry() as registry:
        registry.push(IMAGE)
        found = await take(registry, cache)
        assert found.digest == IMAGE.manifest
        assert {seen.authorization for seen in registry.seen} == {""}
        before = len(registry.seen)
        assert (await take(registry, cache, f"app@{IMAGE.manifest}")).cached
        assert len(registry.seen) == before, "an image that is cached by digest touches no network"
        assert (await take(registry, cache)).cached
        assert registry.paths()[-1:] == ["/v2/app/manifests/latest"], "a tag is asked for, and nothing else"


async def test_anonymous_with_a_bearer_challenge(cache: ImageCache) -> None:
    with StandInRegistry(Behaviour(bearer=True)) as registry:
        registry.push(IMAGE)
        await take(registry, cache)
        (token,) = [seen for seen in registry.seen if seen.path.startswith("/token")]
        assert token.path == "/token?service=stand-in&scope=repository%3Aapp%3Apull"
        assert token.authorization == ""


@pytest.mark.parametrize("bearer", [False, True])
async def test_a_user_with_a_password(cache: ImageCache, tmp_path: Path, bearer: bool) -> None:
    with StandInRegistry(Behaviour(bearer=bearer, users={"me": "pa:ss"})) as registry:
        registry.push(IMAGE)
        right = authfile(tmp_path, auths={registry.name: {"auth": basic("me", "pa:ss")}})
        assert (await take(registry, cache, authfile=right)).digest == IMAGE.manifest
        with_basic = {seen.path.partition("?")[0] for seen in registry.seen if seen.authorization.startswith("Basic")}
        assert with_basic == ({"/token"} if bearer else set(registry.paths()))


@pytest.mark.parametrize("bearer", [False, True])
async def test_no_or_wrong_credentials_are_refused_with_how_to_log_in(
    cache: ImageCache, tmp_path: Path, bearer: bool
) -> None:
    with StandInRegistry(Behaviour(bearer=bearer, users={"me": "secret-1"})) as registry:
        registry.push(IMAGE)
        wrong = authfile(tmp_path, auths={registry.name: {"auth": basic("me", "secret-2")}})
        for options, who in (({}, "anonymous users"), ({"authfile": wrong}, "these credentials")):
            with pytest.raises(RegistryDenied, match=who) as caught:
                await take(registry, cache, **options)
            assert f"docker login {registry.name}" in caught.value.hint
            assert "secret" not in f"{caught.value} {caught.value.hint}"
    assert not list(cache.blobs.rglob("*")) if cache.blobs.exists() else True


async def test_credentials_are_found_where_docker_and_podman_keep_them(cache: ImageCache, tmp_path: Path) -> None:
    with StandInRegistry(Behaviour(users={"me": "pw"})) as registry:
        registry.push(IMAGE)
        entry = {"auths": {registry.name: {"auth": basic("me", "pw")}}}
        narrow = {
            "auths": {registry.name: {"auth": basic("no", "no")}, f"{registry.name}/app": entry["auths"][registry.name]}
        }
        url = {"auths": {f"http://{registry.name}": entry["auths"][registry.name]}}
        places = {
            "docker/config.json": {"DOCKER_CONFIG": str(tmp_path / "docker")},
            "home/.docker/config.json": {"HOME": str(tmp_path / "home")},
            "run/containers/auth.json": {"XDG_RUNTIME_DIR": str(tmp_path / "run")},
            "config/containers/auth.json": {"XDG_CONFIG_HOME": str(tmp_path / "config")},
            "named.json": {"REGISTRY_AUTH_FILE": str(tmp_path / "named.json")},
        }
        for number, (place, environment) in enumerate(places.items()):
            path = tmp_path / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps((entry, narrow, url)[number % 3]))
            fresh = ImageCache(tmp_path / f"cache{number}")
            assert (await take(registry, fresh, environment=environment)).digest == IMAGE.manifest
            path.unlink()


async def test_an_identity_token_is_exchanged(cache: ImageCache, tmp_path: Path) -> None:
    with StandInRegistry(Behaviour(bearer=True, refresh_token="idt")) as registry:
        registry.push(IMAGE)
        await take(registry, cache, authfile=authfile(tmp_path, auths={registry.name: {"identitytoken": "idt"}}))
        (asked,) = [seen for seen in registry.seen if seen.path == "/token"]
        assert (asked.method, "grant_type=refresh_token" in asked.body) == ("POST", True)


def helper(folder: Path, name: str, script: str) -> dict[str, str]:
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder)}


@pytest.mark.parametrize("key", ["credHelpers", "credsStore"])
async def test_credential_helpers_are_asked(
    cache: ImageCache, tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StandInRegistry(Behaviour(users={"me": "pw"})) as registry:
        registry.push(IMAGE)
        environment = helper(
            tmp_path, "fake", f"""read host; [ "$1 $host" = "get {registry.name}" ] || exit 1
            echo '{{"ServerURL":"x","Username":"me","Secret":"pw"}}'"""
        )  # fmt: skip
        monkeypatch.setenv("PATH", environment["PATH"])
        content = {"credHelpers": {registry.name: "fake"}} if key == "credHelpers" else {"credsStore": "fake"}
        found = await take(registry, cache, authfile=authfile(tmp_path, **content), environment=environment)
        assert found.digest == IMAGE.manifest


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo boom >&2; exit 3", "boom"),
        ("echo not json", "JSON"),
        ("echo 'credentials not found in native keychain'; exit 1", "anonymous"),
    ],
)
async def test_a_helper_that_fails_is_told(
    cache: ImageCache, tmp_path: Path, script: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StandInRegistry(Behaviour(users={"me": "pw"})) as registry:
        registry.push(IMAGE)
        environment = helper(tmp_path, "bad", script)
        monkeypatch.setenv("PATH", environment["PATH"])
        with pytest.raises((RegistryDenied, InputError), match=told):
            await take(registry, cache, authfile=authfile(tmp_path, credsStore="bad"), environment=environment)
        with pytest.raises((RegistryDenied, InputError), match="docker-credential-missing"):
            await take(registry, cache, authfile=authfile(tmp_path, credsStore="missing"), environment=environment)


async def test_a_helper_is_not_asked_when_nobody_wants_credentials(cache: ImageCache, tmp_path: Path) -> None:
    with StandInRegistry() as registry:
        registry.push(IMAGE)
        await take(registry, cache, authfile=authfile(tmp_path, credsStore="missing"))


async def test_a_token_file_is_sent_to_the_registry_alone(cache: ImageCache, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("good-token\n")
    with StandInRegistry() as store, StandInRegistry(Behaviour(bearer=True, redirect_blobs_to=store.url)) as registry:
        registry.push(IMAGE)
        store.push(IMAGE)
        assert (await take(registry, cache, token_file=token)).digest == IMAGE.manifest
        assert not [seen for seen in registry.seen if seen.path.startswith("/token")]
        assert store.paths()
        assert {seen.authorization for seen in store.seen} == {""}
        token.write_text("bad-token")
        with pytest.raises(RegistryDenied, match="these credentials"):
            await take(registry, ImageCache(tmp_path / "other"), token_file=token)


@pytest.mark.parametrize("content", ["", "two words", "nul\0", "ü"])
async def test_a_token_file_that_holds_no_token_is_refused(cache: ImageCache, tmp_path: Path, content: str) -> None:
    token = tmp_path / "token"
    token.write_text(content)
    with StandInRegistry() as registry:
        for path in (token, tmp_path / "missing"):
            with pytest.raises(InputError, match="--token-file"):
                await take(registry, cache, token_file=path)


async def test_redirects_carry_no_credentials_to_another_origin(cache: ImageCache, tmp_path: Path) -> None:
    with (
        StandInRegistry() as store,
        StandInRegistry(Behaviour(bearer=True, users={"me": "pw"}, redirect_blobs_to=store.url)) as registry,
    ):
        registry.push(IMAGE)
        store.push(IMAGE)
        path = authfile(tmp_path, auths={registry.name: {"auth": basic("me", "pw")}})
        assert (await take(registry, cache, authfile=path)).digest == IMAGE.manifest
        assert len(store.paths()) == 4
        assert {seen.authorization for seen in store.seen} == {""}


async def test_a_store_that_asks_for_credentials_after_a_redirect_gets_none(cache: ImageCache, tmp_path: Path) -> None:
    with (
        StandInRegistry(Behaviour(users={"me": "pw"})) as store,
        StandInRegistry(Behaviour(users={"me": "pw"}, redirect_blobs_to=store.url)) as registry,
    ):
        registry.push(IMAGE)
        store.push(IMAGE)
        path = authfile(tmp_path, auths={name: {"auth": basic("me", "pw")} for name in (registry.name, store.name)})
        with pytest.raises(RegistryDenied, match="redirected"):
            await take(registry, cache, authfile=path)
        assert {seen.authorization for seen in store.seen} == {""}


async def test_redirects_end(cache: ImageCache) -> None:
    with StandInRegistry() as registry:
        registry.behaviour.redirect_blobs_to = registry.url
        registry.push(IMAGE)
        with pytest.raises(RegistryDenied, match="more than 5 times"):
            await take(registry, cache)


async def test_what_is_not_there_is_not_found(cache: ImageCache) -> None:
    with StandInRegistry() as registry:
        registry.push(IMAGE)
        for name in ("app:no", f"app@sha256:{'0' * 64}"):
            with pytest.raises(ImageNotFound, match="manifest unknown"):
                await take(registry, cache, name)


async def test_what_is_forbidden_says_so(cache: ImageCache) -> None:
    with StandInRegistry(Behaviour(forbidden=True)) as registry:
        with pytest.raises(RegistryDenied, match=r"403.*not yours"):
            await take(registry, cache)


async def test_a_manifest_under_a_wrong_digest_is_refused(cache: ImageCache) -> None:
    with StandInRegistry() as registry:
        registry.push(IMAGE)
        wrong = f"sha256:{'0' * 64}"
        registry.manifests[wrong] = registry.manifests["latest"]
        with pytest.raises(DigestMismatch, match=wrong):
            await take(registry, cache, f"app@{wrong}")
        registry.behaviour.digest_header = wrong
        with pytest.raises(DigestMismatch, match=wrong):
            await take(registry, cache)


async def test_a_token_service_elsewhere_gets_credentials_only_with_tls(cache: ImageCache, tmp_path: Path) -> None:
    with StandInRegistry(Behaviour(bearer=True, realm="http://tokens.invalid/token")) as registry:
        registry.push(IMAGE)
        path = authfile(tmp_path, auths={registry.name: {"auth": basic("me", "pw")}})
        with pytest.raises(RegistryDenied, match=r"tokens\.invalid.*TLS"):
            await take(registry, cache, authfile=path)
