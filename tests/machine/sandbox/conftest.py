"""Fixtures of the tests of sandboxes without a kernel of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.machine.sandbox.host_boxes import remove_images


@pytest.fixture(scope="session", autouse=True)
def images() -> Iterator[None]:
    """Remove the images at the end."""
    yield
    remove_images()
