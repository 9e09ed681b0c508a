"""QEMU's last words."""

from __future__ import annotations

import pytest

from metalmark.model import BoxLost, MetalmarkError, NoPermission, StableError
from metalmark.sandbox.qemu_process import explain_end


@pytest.mark.parametrize(
    ("code", "said", "kind", "words"),
    [
        (0, "", BoxLost, "switched itself off"),
        (-9, "", BoxLost, "signal 9"),
        (1, "qemu: cannot set up guest memory 'ram': Cannot allocate memory", StableError, "memory"),
        (1, "Could not open '/x': Permission denied", NoPermission, "may not open"),
        (1, "unsupported machine type", StableError, "unsupported machine type"),
    ],
)
def test_end_is_explained(code: int, said: str, kind: type[MetalmarkError], words: str) -> None:
    found = explain_end(code, said)
    assert isinstance(found, kind)
    assert words in str(found)
