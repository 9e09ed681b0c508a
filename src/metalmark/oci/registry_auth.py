"""Credentials for registries: challenges, Docker's configuration file and credential helpers, bearer tokens.

Formats: RFC 9110 § 11 (challenges), the Docker registry token specification, Docker's ``config.json`` and credential
helper protocol, containers-auth.json(5).
"""

from __future__ import annotations

import base64
import binascii
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from metalmark.model import InputError, MetalmarkError, NotAnImage, RegistryDenied
from metalmark.oci.access import RegistryAccess
from metalmark.oci.documents import Node
from metalmark.oci.reference import DOCKER_HUB
from metalmark.system import in_thread, run

_MAX_FILE_BYTES = 4 * 1024 * 1024
_MAX_TOKEN_BYTES = 64 * 1024
_HELPER_TIMEOUT_S = 30.0
_HELPER_NAME = re.compile(r"[a-zA-Z0-9._-]+")
_DOCKER_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", DOCKER_HUB)
_SCHEME = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]*)(?:\s+|(?=,)|$)")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """A user with a password, or an identity token that is exchanged for bearer tokens."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """One way to authenticate that a registry offers."""

    scheme: str
    """Lower case."""
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(header: str) -> list[Challenge]:
    """Read a WWW-Authenticate header; what cannot be read is left out."""
    return list(_challenges(header[:_MAX_TOKEN_BYTES]))


def _challenges(header: str) -> Iterator[Challenge]:
    position = 0
    while (scheme := _SCHEME.match(header, position)) is not None:
        position = scheme.end()
        parameters: dict[str, str] = {}
        while (found := _PARAMETER.match(header, position)) is not None:
            quoted, plain = found[2], found[3]
            parameters[found[1].lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            position = found.end()
        yield Challenge(scheme=scheme[1].lower(), parameters=parameters)


def read_token(access: RegistryAccess) -> str:
    """Return the bearer token that was given; empty when there is none.

    Raises:
        InputError: It cannot be read or holds something else.
    """
    if access.token:
        return access.token
    path = access.token_file
    if path is None:
        return ""
    try:
        with path.open("rb") as stream:
            token = stream.read(_MAX_TOKEN_BYTES + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it holds something other than ASCII"
        raise InputError("--token-file", str(path), why or "it cannot be read") from error
    if not token or len(token) > _MAX_TOKEN_BYTES or any(not 33 <= ord(letter) <= 126 for letter in token):
        raise InputError("--token-file", str(path), "it does not hold one token")
    return token


async def find_credentials(registry: str, repository: str, access: RegistryAccess) -> Credentials | None:
    """Look for credentials as Docker and Podman do, in files and credential helpers.

    Args:
        registry: ``host[:port]`` as the user wrote it.
        repository: Podman files credentials under it as well.
        access: Which files, and the environment that helpers get.

    Raises:
        InputError: The file that was named cannot be used.
        RegistryDenied: A credential helper failed.
    """
    for path in _files(access):
        top = await in_thread(_read, path, access.authfile is not None)
        if top is None:
            continue
        try:
            found = await _from_file(top, registry, repository, access)
        except NotAnImage as error:
            raise InputError("authfile", str(path), error.found, hint="repair it, or log in again") from error
        if found is not None:
            return found
    return None


def _files(access: RegistryAccess) -> list[Path]:
    if access.authfile is not None:
        return [access.authfile]
    env = access.environment
    if named := env.get("REGISTRY_AUTH_FILE"):
        return [Path(named)]
    found: list[Path] = []
    if runtime := env.get("XDG_RUNTIME_DIR"):
        found.append(Path(runtime) / "containers/auth.json")
    home = env.get("HOME")
    if config := env.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else ""):
        found.append(Path(config) / "containers/auth.json")
    if docker := env.get("DOCKER_CONFIG") or (f"{home}/.docker" if home else ""):
        found.append(Path(docker) / "config.json")
    return found


def _read(path: Path, named: bool) -> Node | None:  # noqa: FBT001 - in_thread passes positions only
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_FILE_BYTES)
    except OSError as error:
        if named:
            raise InputError("--authfile", str(path), error.strerror or "it cannot be read") from error
        return None
    try:
        return Node.parse(data, what=f"the credentials file {path}")
    except NotAnImage as error:
        raise InputError("authfile", str(path), error.why or error.found, hint="repair it, or log in again") from error


async def _from_file(top: Node, registry: str, repository: str, access: RegistryAccess) -> Credentials | None:
    keys = list(_keys(registry, repository))
    helpers = top.get("credHelpers").mapping(4096)
    for key in keys:
        if key in helpers:
            return await _ask_helper(helpers[key], key, access)
    entries = top.get("auths")
    for key in keys:
        if entries.value is not None and entries.has(key):
            found = _from_entry(entries.get(key))
            if found is not None:
                return found
    if store := top.get("credsStore").text(""):
        for key in keys if registry == DOCKER_HUB else (registry,):
            found = await _ask_helper(store, key, access)
            if found is not None:
                return found
    return None


def _keys(registry: str, repository: str) -> Iterator[str]:
    parts = repository.split("/")
    for count in range(len(parts), 0, -1):
        yield "/".join((registry, *parts[:count]))
    yield registry
    if registry == DOCKER_HUB:
        yield from _DOCKER_HUB_KEYS
    else:
        yield from (f"https://{registry}", f"http://{registry}", f"https://{registry}/v1/", f"https://{registry}/v2/")


def _from_entry(node: Node) -> Credentials | None:
    if token := node.get("identitytoken").text(""):
        return Credentials(identity_token=token)
    if auth := node.get("auth").text(""):
        try:
            username, _, password = base64.b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            Node(what=node.what, path=f"{node.path}.auth", value="…").refuse("user:password in base64")
        return Credentials(username=username, password=password.rstrip("\0"))
    if username := node.get("username").text(""):
        return Credentials(username=username, password=node.get("password").text(""))
    return None


async def _ask_helper(name: str, key: str, access: RegistryAccess) -> Credentials | None:
    """Run ``docker-credential-NAME get``; None when it has nothing for the registry."""
    if not _HELPER_NAME.fullmatch(name):
        raise InputError("credential helper", name, "it is not the name of a program")
    program = f"docker-credential-{name}"
    with tempfile.TemporaryFile() as question:
        question.write(key.encode())
        question.seek(0)
        try:
            answer = await run(
                [program, "get"], timeout_s=_HELPER_TIMEOUT_S, stdin=question, env=access.environment or None
            )
        except MetalmarkError as error:
            raise RegistryDenied(
                f"the credential helper {program} could not be asked for {key}",
                why=str(error),
                hint="install it, remove it from Docker's config.json, or give another file with --authfile",
            ) from error
    text = answer.stdout.strip()
    if answer.returncode != 0:
        if b"not found" in text or b"not found" in answer.stderr:
            return None
        raise RegistryDenied(
            f"the credential helper {program} failed for {key}",
            why=(text[:200].decode("utf-8", "replace") or answer.error_text[-200:]),
            hint="log in again with docker login or podman login",
        )
    node = Node.parse(text, what=f"the answer of {program}")
    secret = node.get("Secret").text()
    username = node.get("Username").text("")
    if username == "<token>":
        return Credentials(identity_token=secret)
    return Credentials(username=username, password=secret)
