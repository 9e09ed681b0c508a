from __future__ import annotations

import io
import tarfile

from metalmark.model import Digest
from metalmark.oci.manifest import Manifest, read_document
from metalmark.testing.images import FakeImage, FakeLayer, tar_of


def test_a_fake_image_is_well_formed_unless_a_test_makes_it_otherwise() -> None:
    layer = FakeLayer.gzipped(tar_of({"a": b"1"}))
    image = FakeImage(layers=[layer])
    manifest = read_document(image.blobs[image.manifest], what="it")
    assert isinstance(manifest, Manifest)
    assert manifest.layers[0].digest == Digest.of(layer.blob)
    assert all(Digest.of(data) == digest for digest, data in image.blobs.items())
    assert FakeImage(layers=[layer]).manifest == image.manifest
    assert FakeImage(manifest_fields={"layers": 3}).manifest != image.manifest


def test_a_tar_holds_what_it_was_given() -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_of({"a/b": b"12"}))) as archive:
        (member,) = archive.getmembers()
        assert (member.name, member.size) == ("a/b", 2)
