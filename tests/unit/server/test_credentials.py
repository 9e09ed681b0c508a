from __future__ import annotations

from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from metalmark.model import Unauthenticated
from metalmark.server.actor import Anonymous
from metalmark.server.context import ServerContext
from metalmark.server.credentials import authenticate, bearer


class Untouched:
    """A store that nothing may be asked of."""

    @asynccontextmanager
    async def read(self) -> Any:
        raise AssertionError("the store was read for a credential that cannot be one")
        yield


def asked(header: str | None) -> object:
    context = cast("ServerContext", SimpleNamespace(store=Untouched()))
    return anyio.run(authenticate, context, header)


@pytest.mark.parametrize("header", [None, "", "Basic YTpi", "Token abc", "Bearerx abc", "abc"])
def test_what_is_no_bearer_credential_is_none(header: str | None) -> None:
    assert bearer(header) is None
    assert asked(header) == Anonymous()


@pytest.mark.parametrize("header", ["Bearer a", "bearer a", "BEARER a", "Bearer  a ", " Bearer a"])
def test_the_scheme_has_any_case_and_the_value_is_trimmed(header: str) -> None:
    assert bearer(header) == "a"


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "bearer   "])
def test_a_scheme_without_a_credential_is_an_error(header: str) -> None:
    with pytest.raises(Unauthenticated):
        bearer(header)


@pytest.mark.parametrize(
    "credential",
    [
        "no-credential",
        "bencher_user_" + "a" * 29,
        "bencher_user_" + "a" * 31,
        "bencher_run_" + "ä" * 30,
        "bencher_runner_" + "a" * 30,
        "a.b",
        "x" * 100_000,
    ],
    ids=lambda text: text[:20],
)
def test_a_malformed_credential_and_a_runners_are_refused_unlooked_up_and_unrepeated(credential: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        asked(f"Bearer {credential}")
    assert credential not in f"{caught.value} {caught.value.hint}"
