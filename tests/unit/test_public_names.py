"""What packages export, whatever was imported first."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import pytest

import metalmark

PACKAGES = [info.name for info in pkgutil.iter_modules(metalmark.__path__, "metalmark.") if info.ispkg]


@pytest.mark.parametrize("name", PACKAGES)
def test_exported_name_is_never_a_module(name: str) -> None:
    package = importlib.import_module(name)
    for info in pkgutil.iter_modules(package.__path__, f"{name}."):
        importlib.import_module(info.name)
    for exported in getattr(package, "__all__", ()):
        # A lazily exported function whose module has the same name turns into the module once that is imported.
        assert not isinstance(getattr(package, exported), ModuleType), f"{name}.{exported}"
