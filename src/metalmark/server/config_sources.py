"""Where the values of a configuration come from: a TOML file, the environment, flags; the later beat the earlier."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from metalmark.model import InputError, StableError
from metalmark.server.config import ServerConfig
from metalmark.server.config_rules import rule_faults

_PREFIX = "METALMARK_"
_MAX_FILE_BYTES = 1024 * 1024
_SECRET = frozenset({"database", "storage"})


@dataclass(frozen=True, kw_only=True)
class Key:
    """One thing that can be set."""

    name: str
    """As in the file, with its section (``server.bind``)."""
    variable: str
    """The environment variable (``METALMARK_SERVER_BIND``)."""
    field: FieldInfo
    many: bool
    """Whether it is a list; in the environment its items are separated by commas."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong with a configuration."""

    where: str
    """The key and the source that set it: ``server.bind (METALMARK_SERVER_BIND)``."""
    why: str


class ConfigFaults(StableError):
    """A configuration cannot be used; all that is wrong with it is said at once.

    Args:
        faults: What is wrong, at least one thing.
    """

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        lines = "\n".join(f"  {fault.where}: {fault.why}" for fault in faults)
        super().__init__(
            f"{len(faults)} error{'s' * (len(faults) > 1)} in the configuration\n{lines}",
            hint="`metalmark server config check` reads it without starting anything",
        )
        self.faults = faults


def _is_many(annotation: object) -> bool:
    if get_origin(annotation) in (Annotated, Union):
        return any(_is_many(argument) for argument in get_args(annotation))
    return get_origin(annotation) is tuple


def config_keys() -> Iterator[Key]:
    """Yield every key of the configuration, in the order of the model."""
    for section, outer in ServerConfig.model_fields.items():
        inner = outer.annotation
        fields = (
            {f"{section}.{name}": field for name, field in inner.model_fields.items()}
            if isinstance(inner, type) and issubclass(inner, BaseModel)
            else {section: outer}
        )
        for name, field in fields.items():
            variable = _PREFIX + name.replace(".", "_").upper()
            yield Key(name=name, variable=variable, field=field, many=_is_many(field.annotation))


def _near(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"there is no such key; {close[0]} is near" if close else "there is no such key"


def _from_file(path: Path) -> Mapping[str, object]:
    try:
        with path.open("rb") as stream:
            text = stream.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigFaults((Fault(where=str(path), why=f"cannot be read: {error.strerror}"),)) from error
    if len(text) > _MAX_FILE_BYTES:
        raise ConfigFaults((Fault(where=str(path), why=f"this is over {_MAX_FILE_BYTES} bytes"),))
    try:
        return tomllib.loads(text.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigFaults((Fault(where=str(path), why=f"this is not TOML: {error}"),)) from error


class _Gathered:
    """Values by key with the source of each, and the faults of names."""

    def __init__(self) -> None:
        self.keys = {key.name: key for key in config_keys()}
        self.values: dict[str, object] = {}
        self.sources: dict[str, str] = {}
        self.faults: list[Fault] = []

    def put(self, name: str, value: object, source: str) -> None:
        if name in self.keys:
            self.values[name] = value
            self.sources[name] = source
        else:
            self.faults.append(Fault(where=f"{name} ({source})", why=_near(name, list(self.keys))))

    def put_file(self, path: Path) -> None:
        sections = {name.partition(".")[0] for name in self.keys if "." in name}
        for section, value in _from_file(path).items():
            if section not in sections:
                self.put(section, value, str(path))
            elif isinstance(value, Mapping):
                for name, inner in value.items():
                    self.put(f"{section}.{name}", inner, str(path))
            else:
                self.faults.append(Fault(where=f"{section} ({path})", why="this is a section, not a value"))

    def put_environment(self, environment: Mapping[str, str]) -> None:
        by_variable = {key.variable: key for key in self.keys.values()}
        sections = tuple(f"{_PREFIX}{name.partition('.')[0].upper()}_" for name in self.keys if "." in name)
        for variable, value in environment.items():
            if (key := by_variable.get(variable)) is not None:
                words = [word.strip() for word in value.split(",") if word.strip()]
                self.put(key.name, words if key.many else value, variable)
            elif variable.startswith(sections):
                self.faults.append(Fault(where=variable, why=_near(variable, list(by_variable))))

    def nested(self) -> dict[str, object]:
        tree: dict[str, object] = {}
        for name, value in self.values.items():
            section, _, inner = name.partition(".")
            if inner:
                folder = tree.setdefault(section, {})
                assert isinstance(folder, dict)
                folder[inner] = value
            else:
                tree[section] = value
        return tree

    def where(self, location: tuple[int | str, ...]) -> str:
        for length in (2, 1):
            name = ".".join(str(part) for part in location[:length])
            if name in self.sources:
                return f"{name} ({self.sources[name]})"
        return ".".join(str(part) for part in location)


def read_config(
    *, file: Path | None, environment: Mapping[str, str], flags: Mapping[str, str | None] | None = None
) -> ServerConfig:
    """Return the configuration of a server.

    Args:
        file: A TOML file; None for none.
        environment: Variables; those that begin like a section of the configuration have to be keys of it.
        flags: Values of the command line by key (``server.bind``); None for a flag that was not given.

    Raises:
        ConfigFaults: Something is wrong; everything that is, is said.
        InputError: A flag is no key: the caller's own mistake.
    """
    gathered = _Gathered()
    if file is not None:
        gathered.put_file(file)
    gathered.put_environment(environment)
    for name, value in (flags or {}).items():
        if name not in gathered.keys:
            raise InputError("flag", name, "this is no key of the configuration")
        if value is not None:
            gathered.put(name, value, f"--{name.rpartition('.')[2]}")
    config, bad = _validated(gathered)
    # Rules that values have with each other are tried on what is valid, so that one look shows everything.
    gathered.faults += [
        Fault(where=gathered.where((name,)), why=why) for name, why in rule_faults(config) if name not in bad
    ]
    if gathered.faults:
        raise ConfigFaults(tuple(gathered.faults))
    return config


def _validated(gathered: _Gathered) -> tuple[ServerConfig, frozenset[str]]:
    try:
        return ServerConfig.model_validate(gathered.nested()), frozenset()
    except ValidationError as error:
        faults = error.errors(include_url=False)
    bad = set()
    for fault in faults:
        place = [str(part) for part in fault["loc"]]
        name = place[0] if place[0] in gathered.values else ".".join(place[:2])
        # Addresses may hold passwords, whatever the documentation says.
        given = "" if name in _SECRET else f"{fault['input']!r:.80}: "
        where = Fault(where=gathered.where(fault["loc"]), why=given + fault["msg"].removeprefix("Value error, "))
        # A value that is one of several kinds has a fault for each of them.
        gathered.faults += [] if name in bad and len(place) > 2 and gathered.keys[name].many else [where]
        bad.add(name)
        gathered.values.pop(name, None)
    return ServerConfig.model_validate(gathered.nested()), frozenset(bad)
