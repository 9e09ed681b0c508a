"""Images made and served by other tools: skopeo, umoci, buildah, Debian's docker-registry."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.oci.peers import run, serving

from metalmark.model import DigestMismatch, ImageConfig, ImageNotFound, LayerRefused, Platform, RegistryDenied
from metalmark.oci import (
    Compression,
    ImageCache,
    PackRequest,
    PackSource,
    Patience,
    RegistryAccess,
    ResolvedImage,
    inspect,
    pack,
    parse_source,
    pull,
)

pytestmark = pytest.mark.anyio
AMD64 = Platform("linux", "amd64")
HTPASSWD = "me:$2a$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
"""User ``me`` with the password ``secret``, bcrypt."""
QUICK = Patience(connect_s=5, idle_s=10, attempts=2, first_wait_s=0.05)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    tree = folder / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/run").write_bytes(os.urandom(2_000_000))
    request = PackRequest(
        sources=(PackSource(path=tree),), config=ImageConfig(entrypoint=("/bin/run",)), platform=AMD64, tag="v1"
    )
    pack(request, folder / "layout", archive=False)
    return folder / "layout"


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ImageCache]:
    with ImageCache(tmp_path / "cache") as cache:
        yield cache


async def take(cache: ImageCache, text: str | Path, **access: object) -> ResolvedImage:
    chosen = RegistryAccess(patience=QUICK, **{"certs_folders": (), **access})  # type: ignore[arg-type]
    return await pull(parse_source(str(text)), cache=cache, platform=AMD64, access=chosen)


async def test_a_registry_on_loopback_speaks_http(cache: ImageCache, layout: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "registry") as name:
        run("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:v1", f"docker://{name}/team/app:v1")
        digest = run(
            "skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{name}/team/app:v1"
        )
        found = await take(cache, f"{name}/team/app:v1")
        assert (str(found.digest), found.config.entrypoint) == (digest, ("/bin/run",))
        described = await inspect(parse_source(f"{name}/team/app:v1"), cache=cache, platform=AMD64)
        assert [layer.diff_id for layer in described.layers] == [layer.diff_id for layer in found.layers]
        with pytest.raises(ImageNotFound, match="manifest unknown"):
            await take(cache, f"{name}/team/app:v2")
        with pytest.raises(ImageNotFound):
            await take(cache, f"{name}/team/other:v1")
    assert (await take(cache, f"{name}/team/app@{digest}")).cached, "the registry is gone, the digest is cached"


@pytest.mark.parametrize("compression", Compression)
async def test_docker_and_oci_media_types_and_every_compression(
    cache: ImageCache, layout: Path, tmp_path: Path, compression: Compression
) -> None:
    request = PackRequest(sources=(PackSource(path=layout.parent / "tree"),), platform=AMD64, compression=compression)
    packed = pack(request, tmp_path / "packed", archive=False)
    with serving(tmp_path / "registry") as name:
        run("skopeo", "copy", "-q", "--dest-tls-verify=false", "--preserve-digests", f"oci:{packed.path}:latest",
            f"docker://{name}/app:oci")  # fmt: skip
        found = await take(cache, f"{name}/app:oci")
        assert (found.digest, found.layers[0].digest) == (packed.digest, packed.layer_digest)
        assert found.layers[0].compression is compression
        if compression is Compression.GZIP:
            run("skopeo", "copy", "-q", "--dest-tls-verify=false", "--format", "v2s2", f"oci:{packed.path}:latest",
                f"docker://{name}/app:docker")  # fmt: skip
            docker = await take(cache, f"{name}/app:docker")
            assert docker.layers[0].media_type == "application/vnd.docker.image.rootfs.diff.tar.gzip"
            assert docker.layers[0].digest == packed.layer_digest


async def test_tls_with_an_authority_of_the_registrys_own(cache: ImageCache, layout: Path, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate)  # fmt: skip
    with serving(tmp_path / "registry", tls={"certificate": str(certificate), "key": str(key)}) as name:
        run("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:v1", f"docker://{name}/app:v1")
        with pytest.raises(RegistryDenied, match="not trusted") as caught:
            await take(cache, f"{name}/app:v1")
        assert f"certs.d/{name}" in caught.value.hint
        assert (await take(cache, f"{name}/app:v1", environment={"SSL_CERT_FILE": str(certificate)})).layers
        certs = tmp_path / "certs.d"
        (certs / name).mkdir(parents=True)
        shutil.copy(certificate, certs / name / "ca.crt")
        with ImageCache(tmp_path / "other") as other:
            assert not (await take(other, f"{name}/app:v1", certs_folders=(certs,))).cached


async def test_basic_authentication_with_htpasswd(cache: ImageCache, layout: Path, tmp_path: Path) -> None:
    passwords = tmp_path / "htpasswd"
    passwords.write_text(HTPASSWD)
    with serving(tmp_path / "registry", auth={"htpasswd": {"realm": "test", "path": str(passwords)}}) as name:
        authfile = tmp_path / "auth.json"
        login = ("skopeo", "login", "--tls-verify=false", "--authfile", authfile, "-u", "me", "-p", "secret", name)
        run(*login)
        copy = ("skopeo", "copy", "-q", "--dest-tls-verify=false", "--authfile", authfile)
        run(*copy, f"oci:{layout}:v1", f"docker://{name}/app:v1")
        with pytest.raises(RegistryDenied, match="anonymous"):
            await take(cache, f"{name}/app:v1")
        wrong = tmp_path / "wrong.json"
        wrong.write_text(json.dumps({"auths": {name: {"auth": "bWU6d3Jvbmc="}}}))
        with pytest.raises(RegistryDenied, match="these credentials"):
            await take(cache, f"{name}/app:v1", authfile=wrong)
        assert (await take(cache, f"{name}/app:v1", authfile=authfile)).layers


async def test_a_layer_that_the_registry_lost_or_damaged(cache: ImageCache, layout: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "registry") as name:
        run("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:v1", f"docker://{name}/app:v1")
        data = max((tmp_path / "registry/data").rglob("data"), key=lambda path: path.stat().st_size)
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
        with pytest.raises((DigestMismatch, LayerRefused), match="layer sha256:"):
            await take(cache, f"{name}/app:v1")
        assert not cache.images_held()


def docker_archive(layout: Path, tmp_path: Path) -> str:
    run("skopeo", "copy", "-q", f"oci:{layout}:v1", f"docker-archive:{tmp_path}/saved.tar:team/app:v1")
    return f"{tmp_path}/saved.tar"


def unpacked_docker_archive(layout: Path, tmp_path: Path) -> str:
    (tmp_path / "saved").mkdir()
    run("tar", "-xf", docker_archive(layout, tmp_path), "-C", tmp_path / "saved")
    return f"{tmp_path}/saved"


def oci_archive(layout: Path, tmp_path: Path) -> str:
    run("skopeo", "copy", "-q", f"oci:{layout}:v1", f"oci-archive:{tmp_path}/a.tar:v1")
    return f"{tmp_path}/a.tar"


def packed_oci_archive(layout: Path, tmp_path: Path) -> str:
    path = oci_archive(layout, tmp_path)
    run("gzip", path)
    return f"{path}.gz"


@pytest.mark.parametrize("make", [docker_archive, unpacked_docker_archive, oci_archive, packed_oci_archive])
async def test_archives_made_by_skopeo(
    cache: ImageCache, layout: Path, tmp_path: Path, make: Callable[[Path, Path], str]
) -> None:
    original = await take(cache, layout)
    found = await take(cache, make(layout, tmp_path))
    assert [layer.diff_id for layer in found.layers] == [layer.diff_id for layer in original.layers]
    assert found.config.entrypoint == ("/bin/run",)


async def test_layouts_made_by_umoci(cache: ImageCache, tmp_path: Path) -> None:
    layout = tmp_path / "umoci"
    (tmp_path / "f").write_bytes(b"f" * 5000)
    run("umoci", "init", "--layout", layout)
    for tag in ("a", "b"):
        run("umoci", "new", "--image", f"{layout}:{tag}")
        run("umoci", "insert", "--rootless", "--image", f"{layout}:{tag}", tmp_path / "f", f"/{tag}")
        run("umoci", "config", "--image", f"{layout}:{tag}", "--config.cmd", f"/{tag}")
    run("umoci", "insert", "--rootless", "--image", f"{layout}:a", tmp_path / "f", "/second")
    found = await take(cache, f"oci:{layout}:a")
    assert (found.config.cmd, len(found.layers)) == (("/a",), 2)
    assert (await take(cache, f"{layout}:b")).config.cmd == ("/b",)


async def test_layouts_made_by_buildah(cache: ImageCache, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("buildah with its own storage needs root")
    storage = ("--storage-driver", "vfs", "--root", tmp_path / "root", "--runroot", tmp_path / "runroot")
    (tmp_path / "f").write_bytes(b"f" * 5000)
    name = run("buildah", *storage, "from", "scratch")
    run("buildah", *storage, "copy", name, tmp_path / "f", "/opt/f")
    run("buildah", *storage, "config", "--entrypoint", '["/opt/f"]', "--env", "A=1", name)
    run("buildah", *storage, "commit", "-q", name, f"oci:{tmp_path}/built:v1")
    found = await take(cache, f"{tmp_path}/built")
    assert (found.config.entrypoint, found.config.env[-1], len(found.layers)) == (("/opt/f",), "A=1", 1)


async def test_peers_read_what_is_packed_here(layout: Path, tmp_path: Path) -> None:
    run("skopeo", "copy", "-q", f"oci:{layout}:v1", f"dir:{tmp_path}/dir")
    run("umoci", "unpack", "--rootless", "--image", f"{layout}:v1", tmp_path / "bundle")
    assert (tmp_path / "bundle/rootfs/bin/run").stat().st_size == 2_000_000
    request = PackRequest(sources=(PackSource(path=layout.parent / "tree"),), platform=AMD64)
    pack(request, tmp_path / "a.tar", archive=True)
    run("skopeo", "inspect", f"oci-archive:{tmp_path}/a.tar")
    run("skopeo", "inspect", f"docker-archive:{tmp_path}/a.tar")
