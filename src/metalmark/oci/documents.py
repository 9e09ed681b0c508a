"""JSON documents from strangers, read field by field with the field named in every refusal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from metalmark.model import Digest, InputError, NotAnImage

_SHOWN = 80


def shown(text: object) -> str:
    """Return foreign text fit for a message: quoted, control characters escaped, cut short."""
    quoted = ascii(text)
    return quoted if len(quoted) <= _SHOWN else f"{quoted[:_SHOWN]}…"


@dataclass(frozen=True, kw_only=True)
class Node:
    """A value of a JSON document and where it stands in it."""

    what: str
    """The document, for people: ``manifest sha256:…``."""
    path: str
    value: object

    @classmethod
    def parse(cls, data: bytes, *, what: str) -> Node:
        """Parse a document whose top is an object.

        Raises:
            NotAnImage: Not JSON, not Unicode, not an object, a name twice in one object, or nested too deep.
        """
        try:
            value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_once, parse_constant=_no_constant)
            if b"\\u" in data:
                # Half of a surrogate pair can be written so, and by nobody who gets it from here.
                json.dumps(value, ensure_ascii=False).encode()
        except RecursionError as error:
            raise NotAnImage(f"{what} is nested too deep") from error
        except ValueError as error:
            raise NotAnImage(f"{what} is not JSON", why=str(error)) from error
        node = cls(what=what, path="", value=value)
        if not isinstance(value, dict | list):
            node.refuse("a JSON object")
        return node

    def refuse(self, wanted: str) -> NoReturn:
        """Say that this value is not what it must be."""
        raise NotAnImage(
            f"{self.what}: {self.path or 'the document'} is {shown(self.value)}", why=f"it must be {wanted}"
        )

    def has(self, name: str) -> bool:
        """Whether a field is there and not null."""
        return self._fields().get(name) is not None

    def get(self, name: str) -> Node:
        """Return a field; its value is None when it is missing."""
        return Node(what=self.what, path=f"{self.path}.{name}" if self.path else name, value=self._fields().get(name))

    def text(self, default: str | None = None) -> str:
        """Return a string; a missing one is the default when there is one."""
        if self.value is None and default is not None:
            return default
        if not isinstance(self.value, str):
            self.refuse("a string")
        return self.value

    def size(self) -> int:
        """Return a count of bytes."""
        if not isinstance(self.value, int) or isinstance(self.value, bool) or not 0 <= self.value < 2**63:
            self.refuse("a size in bytes")
        return self.value

    def digest(self) -> Digest:
        """Return a digest, lower-case hex only."""
        try:
            return Digest.parse(self.text())
        except InputError as error:
            self.refuse(error.why)

    def items(self, limit: int) -> Sequence[Node]:
        """Return the members of a list; a missing one is empty."""
        if self.value is None:
            return ()
        if not isinstance(self.value, list):
            self.refuse("a list")
        if len(self.value) > limit:
            raise NotAnImage(f"{self.what}: {self.path} has {len(self.value)} members", why=f"at most {limit} are read")
        return [
            Node(what=self.what, path=f"{self.path}[{number}]", value=value) for number, value in enumerate(self.value)
        ]

    def texts(self, limit: int) -> tuple[str, ...]:
        """Return a list of strings; a missing one is empty."""
        return tuple(item.text() for item in self.items(limit))

    def mapping(self, limit: int) -> dict[str, str]:
        """Return an object whose values are strings; a missing one is empty."""
        fields = {} if self.value is None else self._fields()
        if len(fields) > limit:
            raise NotAnImage(f"{self.what}: {self.path} has {len(fields)} members", why=f"at most {limit} are read")
        return {name: self.get(name).text("") for name in fields}

    def _fields(self) -> dict[str, object]:
        if not isinstance(self.value, dict):
            self.refuse("an object")
        return self.value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name stands twice in one object, so readers would differ on what it says")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
