from __future__ import annotations

import json

from metalmark.model import ErrorResult, FilesResult, HostResult, ImageResult


def test_texts_that_are_no_unicode_can_be_written_as_json() -> None:
    image = ImageResult(reference="/x\udcff", digest="sha256:…", platform="linux/amd64")
    files = FilesResult(missing=("a\ud800", "ü"))
    assert json.loads(image.model_dump_json())["reference"] == "/x\\xff"
    assert json.loads(files.model_dump_json())["missing"] == ["a\\ud800", "ü"]
    assert "\\\\xff" in ErrorResult(type="X", message="\udcff").model_dump_json()


def test_texts_of_a_mapping_are_written_too() -> None:
    host = HostResult(
        sandbox="qemu", accelerator="tcg", reason="", rootfs="overlay", kernel="", cpus=(0,), helper_cpus=(),
        details={"qemu": "\udc80"},
    )  # fmt: skip
    assert json.loads(host.model_dump_json())["details"] == {"qemu": "\\x80"}
