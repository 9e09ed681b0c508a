"""Images pushed into Debian's docker-registry, and read back by others."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.integration.oci.peers import run, serving

from metalmark.model import Digest, InputError, NotAnImage, Platform, Progress, RegistryDenied, RegistryUnavailable
from metalmark.oci import (
    ImageCache,
    Patience,
    PushedImage,
    PushRequest,
    Reference,
    RegistryAccess,
    parse_source,
    pull,
    push,
)
from metalmark.oci.layout import LayoutOrigin
from metalmark.oci.manifest import Descriptor
from metalmark.oci.upload_record import upload_record
from metalmark.testing.images import FakeImage, FakeLayer, index_of, tar_of, write_layout

pytestmark = pytest.mark.anyio
AMD64 = Platform("linux", "amd64")
QUICK = Patience(connect_s=5, idle_s=10, attempts=3, first_wait_s=0.02)
ACCESS = RegistryAccess(patience=QUICK, certs_folders=())


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("registry") / "here") as name:
        yield name


def image(*, size: int = 300_000, architecture: str = "amd64", layers: int = 3) -> FakeImage:
    made = [FakeLayer.plain(tar_of({f"file{number}": os.urandom(size)})) for number in range(layers)]
    return FakeImage(layers=made, architecture=architecture)


async def send(source: object, target: str, scratch: Path, **fields: object) -> PushedImage:
    request = {"source": parse_source(str(source)), "target": Reference.parse(target), "access": ACCESS}
    request |= {"source_access": ACCESS, "scratch": scratch}
    return await push(PushRequest(**{**request, **fields}))  # type: ignore[arg-type]


def digest_there(name: str) -> str:
    raw = run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    return str(Digest.of(raw.encode()))


async def test_what_is_pushed_is_what_others_pull_and_pushing_again_sends_nothing(
    registry: str, tmp_path: Path
) -> None:
    made = image()
    layout = write_layout(tmp_path / "layout", made)
    first = await send(layout, f"{registry}/team/app:v1", tmp_path)
    assert (first.digest, first.manifests, first.blobs, first.uploaded) == (made.manifest, 1, 4, 4)
    assert first.uploaded_bytes == first.bytes == sum(map(len, made.blobs.values())) - len(made.blobs[made.manifest])
    assert digest_there(f"{registry}/team/app:v1") == str(made.manifest)
    run("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{registry}/team/app:v1", f"dir:{tmp_path}/copy")
    with ImageCache(tmp_path / "cache") as cache:
        found = await pull(parse_source(f"{registry}/team/app:v1"), cache=cache, platform=AMD64, access=ACCESS)
    assert found.digest == made.manifest
    again = await send(layout, f"{registry}/team/app:v2", tmp_path)
    assert (again.uploaded, again.uploaded_bytes) == (0, 0)
    assert list((tmp_path / "uploads").iterdir()) == []


async def test_an_index_goes_whole_or_one_platform_of_it(registry: str, tmp_path: Path) -> None:
    one, two = image(layers=1), image(layers=1, architecture="arm64")
    index = index_of([one.descriptor(platform=True), two.descriptor(platform=True)])
    inner = FakeImage()
    inner.add(index)
    descriptor = {"mediaType": json.loads(index)["mediaType"], "digest": str(Digest.of(index)), "size": len(index)}
    layout = write_layout(tmp_path / "layout", one, two, index=index_of([descriptor]), blobs={Digest.of(index): index})
    whole = await send(layout, f"{registry}/many:v1", tmp_path)
    assert (whole.digest, whole.manifests, whole.blobs) == (Digest.of(index), 3, 4)
    assert digest_there(f"{registry}/many:v1") == str(Digest.of(index))
    only = await send(layout, f"{registry}/many:arm", tmp_path, platform=Platform("linux", "arm64"))
    assert (only.digest, only.manifests, only.uploaded) == (two.manifest, 1, 0)
    loose = write_layout(tmp_path / "loose", one, two, index=index_of([one.descriptor(), two.descriptor()]))
    assert (await send(loose, f"{registry}/many:loose", tmp_path)).manifests == 3


async def test_an_archive_of_docker_gets_a_manifest(registry: str, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", image(), index=None)
    run("skopeo", "copy", "-q", f"oci:{layout}", f"docker-archive:{tmp_path}/saved.tar:app:v1")
    sent = await send(f"docker-archive:{tmp_path}/saved.tar", f"{registry}/saved:v1", tmp_path)
    assert digest_there(f"{registry}/saved:v1") == str(sent.digest)


async def test_between_repositories_of_a_registry_nothing_is_sent(registry: str, tmp_path: Path) -> None:
    made = image()
    await send(write_layout(tmp_path / "layout", made), f"{registry}/from:v1", tmp_path)
    moved = await send(f"docker://{registry}/from:v1", f"{registry}/to:v1", tmp_path)
    assert (moved.digest, moved.uploaded) == (made.manifest, 0)
    assert digest_there(f"{registry}/to:v1") == str(made.manifest)


async def test_from_one_registry_to_another(registry: str, tmp_path: Path) -> None:
    made = image()
    await send(write_layout(tmp_path / "layout", made), f"{registry}/elsewhere:v1", tmp_path)
    with serving(tmp_path / "other") as other:
        sent = await send(f"docker://{registry}/elsewhere:v1", f"{other}/app:v1", tmp_path)
        assert (sent.uploaded, digest_there(f"{other}/app:v1")) == (4, str(made.manifest))


async def test_the_next_push_goes_on_where_this_one_was_stopped(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metalmark.oci.push_target.CHUNK_BYTES", 100_000)
    made = image(size=1_000_000, layers=1)
    layout = write_layout(tmp_path / "layout", made)

    class Stopped(Exception):
        pass

    whole = LayoutOrigin.pieces

    def stop(origin: LayoutOrigin, descriptor: Descriptor, offset: int) -> AsyncIterator[bytes]:
        if offset == 500_000:
            raise Stopped
        return whole(origin, descriptor, offset)

    request = PushRequest(
        source=parse_source(str(layout)),
        target=Reference.parse(f"{registry}/resumed:v1"),
        access=ACCESS,
        scratch=tmp_path,
    )
    with monkeypatch.context() as patch:
        patch.setattr(LayoutOrigin, "pieces", stop)
        with pytest.raises(Stopped):
            await push(request)
    # The configuration may have been on its way too.
    assert 1 <= len(list((tmp_path / "uploads").iterdir())) <= 2
    done: list[Progress] = []
    sent = await push(request, progress=done.append)
    assert sent.digest == made.manifest
    of_layer = [event.done for event in done if event.total == len(made.layers[0].blob)]
    assert of_layer[0] == 500_000
    assert of_layer[-1] == len(made.layers[0].blob)
    assert digest_there(f"{registry}/resumed:v1") == str(made.manifest)
    assert list((tmp_path / "uploads").iterdir()) == []


async def test_of_a_blob_that_is_there_no_upload_is_remembered(registry: str, tmp_path: Path) -> None:
    made = image(layers=1)
    layout = write_layout(tmp_path / "layout", made)
    target = Reference.parse(f"{registry}/there:v1")
    await send(layout, str(target), tmp_path)
    # As a push leaves it that is killed after the registry had all, and before it said so.
    layer = Descriptor(digest=made.layers[0].diff_id, media_type="", size_bytes=len(made.layers[0].blob))
    with upload_record(tmp_path / "uploads", target, layer) as record:
        record.location = f"http://{registry}/v2/there/blobs/uploads/gone"
        record.keep()
    assert len(list((tmp_path / "uploads").iterdir())) == 1
    sent = await send(layout, str(target), tmp_path)
    assert sent.uploaded == 0
    assert list((tmp_path / "uploads").iterdir()) == []


async def test_a_damaged_source_is_not_published(registry: str, tmp_path: Path) -> None:
    made = image(layers=1)
    layout = write_layout(tmp_path / "layout", made)
    layer = made.layers[0]
    path = layout / "blobs/sha256" / layer.diff_id.hex
    path.write_bytes(layer.blob[:-1])
    with pytest.raises(NotAnImage, match="ends after"):
        await send(layout, f"{registry}/short:v1", tmp_path)
    path.write_bytes(layer.blob[:-1] + b"?")
    with pytest.raises(RegistryDenied, match="400"):
        await send(layout, f"{registry}/bent:v1", tmp_path)
    path.unlink()
    with pytest.raises(NotAnImage, match="no file"):
        await send(layout, f"{registry}/gone:v1", tmp_path)


async def test_a_target_by_digest_is_for_that_image_only(registry: str, tmp_path: Path) -> None:
    made = image(layers=1)
    layout = write_layout(tmp_path / "layout", made)
    await send(layout, f"{registry}/pinned@{made.manifest}", tmp_path)
    assert digest_there(f"{registry}/pinned@{made.manifest}") == str(made.manifest)
    with pytest.raises(InputError, match="digest"):
        await send(layout, f"{registry}/pinned@sha256:{'0' * 64}", tmp_path)


async def test_no_registry_is_told_as_such(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", image(layers=1))
    with pytest.raises(RegistryUnavailable, match="pushed to"):
        await send(layout, "127.0.0.1:1/app:v1", tmp_path, access=RegistryAccess(patience=QUICK, plain_http=True))
