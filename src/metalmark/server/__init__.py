"""The web application: routes, authentication, dispatch, the runner channel."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metalmark.server.administration import make_account, reset_key
    from metalmark.server.application import describe, make_application
    from metalmark.server.config import ServerConfig
    from metalmark.server.config_reference import configuration_reference
    from metalmark.server.config_sources import ConfigFaults, Fault, Key, config_keys, read_config
    from metalmark.server.context import ServerContext, default_database, default_storage
    from metalmark.server.first_start import KEY_FILE, ensure_admin
    from metalmark.server.openapi import as_text
    from metalmark.server.passwords import without_password
    from metalmark.server.registry_collection import Collected, collect
    from metalmark.server.registry_scrub import Damage, Scrub, Scrubbed
    from metalmark.server.running import Started, open_context, serve
    from metalmark.server.update_publishing import UpdatePublisher

__all__ = [
    "KEY_FILE",
    "Collected",
    "ConfigFaults",
    "Damage",
    "Fault",
    "Key",
    "Scrub",
    "Scrubbed",
    "ServerConfig",
    "ServerContext",
    "Started",
    "UpdatePublisher",
    "as_text",
    "collect",
    "config_keys",
    "configuration_reference",
    "default_database",
    "default_storage",
    "describe",
    "ensure_admin",
    "make_account",
    "make_application",
    "open_context",
    "read_config",
    "reset_key",
    "serve",
    "without_password",
]

_LATE = (
    "config",
    "config_sources",
    "config_reference",
    "context",
    "first_start",
    "openapi",
    "passwords",
    "running",
    "application",
    "administration",
    "update_publishing",
    "registry_collection",
    "registry_scrub",
)


def __getattr__(name: str) -> object:
    # The web framework takes a noticeable time to import, and reading a configuration needs none of it.
    if name in __all__:
        for noun in _LATE:
            module = importlib.import_module(f"metalmark.server.{noun}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
