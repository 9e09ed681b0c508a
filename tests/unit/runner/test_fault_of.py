from __future__ import annotations

import errno

import pytest

from metalmark.model import BoxLost, BoxTooSmall, MetalmarkError, NoPermission, NoSpace, StableError
from metalmark.runner import as_metalmark_error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BoxLost("gone"), BoxLost),
        (OSError(errno.ENOSPC, "no space"), NoSpace),
        (OSError(errno.EDQUOT, "quota"), NoSpace),
        (PermissionError(errno.EACCES, "no"), NoPermission),
        (ExceptionGroup("", [BoxLost("gone"), BoxTooSmall("small")]), BoxTooSmall),
        (ExceptionGroup("", [ExceptionGroup("", [BoxLost("gone")])]), BoxLost),
    ],
    ids=str,
)
def test_nearest_error_of_the_tree(error: Exception, kind: type[MetalmarkError]) -> None:
    assert type(as_metalmark_error(error)) is kind


def test_surprise_is_a_stable_fault_that_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    error = as_metalmark_error(KeyError("x"))
    assert type(error) is StableError
    assert "KeyError" in str(error)
    assert "defect" in str(error)
    capsys.readouterr()
