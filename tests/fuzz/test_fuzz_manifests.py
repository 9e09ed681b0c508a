"""Fuzz target: documents of strangers. Whatever the bytes, an answer or an `ImageError`, soon and within bounds.

Runs under hypothesis by default, and under atheris as a program: ``python tests/fuzz/test_fuzz_manifests.py CORPUS``.
"""

from __future__ import annotations

import json
import os
import sys

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metalmark.model import ImageError
from metalmark.oci import media
from metalmark.oci.configuration import read_configuration
from metalmark.oci.manifest import Index, read_document

EXAMPLES = 20_000 if os.environ.get("METALMARK_SOAK") else 150
DIGEST = "sha256:" + "0" * 64


def fuzz(data: bytes) -> None:
    """Feed bytes to every reader of documents."""
    for media_type in ("", media.OCI_MANIFEST, media.DOCKER_LIST, "text/html"):
        try:
            document = read_document(data, media_type=media_type, what="it")
        except ImageError as error:
            assert len(str(error)) < 2000, "a stranger's text fills the terminal"
            assert str(error).isprintable(), "it could steer the terminal"
            continue
        for descriptor in document.manifests if isinstance(document, Index) else document.layers:
            assert descriptor.size_bytes >= 0
            assert descriptor.digest.hex == descriptor.digest.hex.lower()
            assert "/" not in descriptor.digest.hex
    try:
        read_configuration(data, what="it")
    except ImageError:
        return


NAMES = st.sampled_from(
    ["schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size", "platform", "os", "architecture",
     "variant", "annotations", "rootfs", "diff_ids", "type", "Env", "Entrypoint", "Labels", "urls", "artifactType"]
)  # fmt: skip
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
    | st.sampled_from([DIGEST, DIGEST.upper(), "sha256:../x", media.OCI_LAYER, media.OCI_CONFIG, media.OCI_MANIFEST,
                       media.OCI_INDEX, media.DOCKER_LIST, "linux", "layers", 2**63, -1])
)  # fmt: skip
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6), max_leaves=25
)


@settings(max_examples=EXAMPLES, deadline=5000, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES, TREES, max_size=8).map(lambda tree: json.dumps(tree).encode()))
def test_documents_of_the_right_words(data: bytes) -> None:
    fuzz(data)


@settings(max_examples=EXAMPLES, deadline=5000)
@given(st.binary(max_size=300))
def test_documents_of_any_bytes(data: bytes) -> None:
    fuzz(data)


def main() -> None:
    """Run under atheris (``pip install atheris``), which finds inputs by coverage."""
    import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

    atheris.instrument_all()
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
