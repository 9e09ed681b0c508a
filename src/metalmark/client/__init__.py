"""Talks to a server: where it is, who asks, requests with retries and deadlines."""

from __future__ import annotations

from metalmark.client.address import DEFAULT_ADDRESS, ServerAddress
from metalmark.client.answer import Answer, JsonValue
from metalmark.client.channel_connection import ChannelConnection, ChannelDeadlines, open_channel
from metalmark.client.credential import (
    CREDENTIAL_NAME,
    Credential,
    CredentialKind,
    credential_needed,
    find_credential,
    parse_key,
    parse_token,
    read_key_file,
)
from metalmark.client.events import ServerEvent
from metalmark.client.image_target import image_access, image_target, own_registry
from metalmark.client.output_upload import OutputFile, upload_output
from metalmark.client.run_body import names_a_project, run_body
from metalmark.client.run_context import CONTEXT_KEYS, read_run_context
from metalmark.client.runner_key import RUNNER_CREDENTIAL_NAME, RUNNER_KEY_VARIABLES, find_runner_key, parse_runner_key
from metalmark.client.session import (
    INTERFACE_VERSION,
    MAX_ANSWER_BYTES,
    QueryValue,
    ServerSession,
    ServerVersion,
    open_session,
)
from metalmark.client.settings import (
    CONFIGURATION_NAME,
    ClientConfiguration,
    ConnectionSettings,
    Patience,
    Trust,
    find_address,
    proxies_of,
    read_configuration,
)
from metalmark.client.trust import tls_context
from metalmark.client.update_download import download_update

__all__ = [
    "CONFIGURATION_NAME",
    "CONTEXT_KEYS",
    "CREDENTIAL_NAME",
    "DEFAULT_ADDRESS",
    "INTERFACE_VERSION",
    "MAX_ANSWER_BYTES",
    "RUNNER_CREDENTIAL_NAME",
    "RUNNER_KEY_VARIABLES",
    "Answer",
    "ChannelConnection",
    "ChannelDeadlines",
    "ClientConfiguration",
    "ConnectionSettings",
    "Credential",
    "CredentialKind",
    "JsonValue",
    "OutputFile",
    "Patience",
    "QueryValue",
    "ServerAddress",
    "ServerEvent",
    "ServerSession",
    "ServerVersion",
    "Trust",
    "credential_needed",
    "download_update",
    "find_address",
    "find_credential",
    "find_runner_key",
    "image_access",
    "image_target",
    "names_a_project",
    "open_channel",
    "open_session",
    "own_registry",
    "parse_key",
    "parse_runner_key",
    "parse_token",
    "proxies_of",
    "read_configuration",
    "read_key_file",
    "read_run_context",
    "run_body",
    "tls_context",
    "upload_output",
]
