from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import Digest, InputError

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_of_bytes_as_text_and_back() -> None:
    digest = Digest.of(b"")
    assert str(digest) == f"sha256:{EMPTY}"
    assert Digest.parse(str(digest)) == digest
    assert digest.short == "e3b0c44298fc"


@pytest.mark.parametrize(
    "text",
    [
        "",
        EMPTY,
        "sha256:",
        f"sha256:{EMPTY.upper()}",
        f"SHA256:{EMPTY}",
        f"sha256:{EMPTY[:-1]}",
        f"sha256:{EMPTY}0",
        f"sha256:{EMPTY[:-1]}g",
        f"sha256:{EMPTY}\n",
        f" sha256:{EMPTY}",
        f"sha512:{EMPTY}",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        f"sha256:{'٠' * 64}",
        f"sha256:../{EMPTY[:-3]}",
    ],
)
def test_anything_else_is_refused_and_names_the_field(text: str) -> None:
    with pytest.raises(InputError) as caught:
        Digest.parse(text, field="layers[0].digest")
    assert caught.value.field == "layers[0].digest"


@given(st.binary(), st.sampled_from(["sha256", "sha512"]))
def test_the_hasher_gives_the_same_as_of(data: bytes, algorithm: str) -> None:
    digest = Digest.of(data, algorithm)
    hasher = digest.hasher()
    hasher.update(data[:3])
    hasher.update(memoryview(data)[3:])
    assert hasher.hexdigest() == digest.hex == hashlib.new(algorithm, data).hexdigest()
    assert Digest.parse(str(digest)) == digest


@given(st.text())
def test_any_text_is_a_digest_or_refused(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except InputError:
        return
    assert str(digest) == text
