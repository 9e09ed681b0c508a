"""Codes and shape of the registry's errors, and the page that lists them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from metalmark.model import (
    Conflict,
    Forbidden,
    InputError,
    MetalmarkError,
    NotFound,
    StoreBusy,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
)
from metalmark.server import registry_errors as module
from metalmark.server.errors import status_of
from metalmark.server.registry_errors import RegistryFault, registry_errors

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "registry.md"
FAULTS = re.compile(r'RegistryFault\(\s*"([A-Z_]+)",\s*(\d{3})')


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InputError("repository", "X", "bad"), 400, "NAME_INVALID"),
        (InputError("path", "..", "bad"), 400, "NAME_INVALID"),
        (InputError("tag", "-", "bad"), 400, "TAG_INVALID"),
        (InputError("digest", "x", "bad"), 400, "DIGEST_INVALID"),
        (InputError("from", "x", "bad"), 400, "NAME_INVALID"),
        (NotFound("repository", "x"), 404, "NAME_UNKNOWN"),
        (NotFound("project", "x"), 404, "NAME_UNKNOWN"),
        (NotFound("blob", "x"), 404, "BLOB_UNKNOWN"),
        (NotFound("manifest", "x"), 404, "MANIFEST_UNKNOWN"),
        (NotFound("upload", "x"), 404, "BLOB_UPLOAD_UNKNOWN"),
        (Unauthenticated("no"), 401, "UNAUTHORIZED"),
        (Forbidden("no"), 403, "DENIED"),
        (Conflict("taken", field="name"), 409, "DENIED"),
        (TooLarge("it", 1), 413, "SIZE_INVALID"),
        (TooManyRequests("it", retry_after_s=1), 429, "TOOMANYREQUESTS"),
        (StoreBusy("busy"), 503, "UNAVAILABLE"),
        (RegistryFault("MANIFEST_INVALID", 400, "bad"), 400, "MANIFEST_INVALID"),
        (ValueError("a fault of ours"), 500, "UNKNOWN"),
    ],
    ids=str,
)
def test_every_error_has_a_code_of_the_specification(error: Exception, status: int, code: str) -> None:
    assert status_of(error) == status
    (found,) = registry_errors(error, status, "what people read")
    assert found == {"code": code, "message": "what people read"}


def test_each_detail_is_an_error() -> None:
    digests = [{"digest": "a"}, {"digest": "b"}]
    error = RegistryFault("MANIFEST_BLOB_UNKNOWN", 400, "2 are missing", details=digests)
    found = registry_errors(error, 400, str(error))
    assert [each["detail"] for each in found] == digests
    assert {each["code"] for each in found} == {"MANIFEST_BLOB_UNKNOWN"}


def test_a_message_is_bounded_and_can_be_printed() -> None:
    (found,) = registry_errors(Forbidden("x"), 403, "\x1b[31m" + "y" * 10_000)
    message = str(found["message"])
    assert len(message) <= 500
    assert "\x1b" not in message


def used() -> set[tuple[str, str]]:
    """Codes and statuses that the sources name; a status of 0 for those that follow from the kind of an error."""
    tables = (module._BY_KIND, module._BY_FIELD)
    found = {(code, "0") for table in tables for code in table.values()}
    found |= {(code, str(status)) for status, code in module._BY_STATUS.items() if status not in (404, 405)}
    for path in (ROOT / "src/metalmark/server").glob("*registry*.py"):
        found |= set(FAULTS.findall(path.read_text(encoding="utf-8")))
    return found


def listed() -> set[tuple[str, str]]:
    """Codes and statuses that the page lists."""
    table = PAGE.read_text(encoding="utf-8").partition("## Errors")[2].partition("## Bounds")[0]
    found, code = set(), ""
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and re.fullmatch(r"[0-9, ]+", cells[1]):
            code = cells[0].strip("`") or code
            found |= {(code, status.strip()) for status in cells[1].split(",")}
    return found


def test_the_page_lists_every_code_with_its_statuses() -> None:
    there = listed()
    codes = {code for code, _ in there}
    assert {code for code, _ in used()} <= codes
    assert {each for each in used() if each[1] != "0"} <= there
    assert codes <= {code for code, _ in used()} | {"UNSUPPORTED", "UNKNOWN"}


def test_errors_are_of_the_tree() -> None:
    assert issubclass(RegistryFault, MetalmarkError)
