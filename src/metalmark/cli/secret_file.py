"""A new secret that goes into a file of its own instead of onto the screen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from metalmark.cli.view import View, single
from metalmark.model import InputError, ProtocolError

if TYPE_CHECKING:
    from metalmark.client import JsonValue


class SecretFile:
    """A file that only its owner can read, made before the secret is: a secret that cannot be kept is not made.

    Args:
        path: Where; nothing may be there. None keeps the secret for the screen.
        field: The field of the answer that is the secret: ``key`` or ``token``. It goes with the flag ``--save-…``.

    Raises:
        InputError: The file is there already, or cannot be made.
    """

    def __init__(self, path: Path | None, *, field: str = "key") -> None:
        self._path = path
        self._field = field
        self._descriptor = -1
        self._kept = path is None

    def __enter__(self) -> Self:
        if self._path is not None:
            flag = f"--save-{self._field}"
            try:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                raise InputError(flag, str(self._path), "there is a file already") from None
            except OSError as error:
                raise InputError(flag, str(self._path), error.strerror or "it cannot be made") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        if not self._kept and self._path is not None:
            self._path.unlink(missing_ok=True)

    def keep(self, answer: JsonValue) -> View:
        """Write the secret of an answer, and return the view of the rest; without a path, of all of it.

        Raises:
            ProtocolError: The answer has no secret.
        """
        secret = answer.get(self._field) if isinstance(answer, Mapping) else None
        if not isinstance(answer, Mapping) or not isinstance(secret, str):
            raise ProtocolError(f"the server answered without the new {self._field}")
        if self._path is None:
            note = f"This {self._field} is shown only now. Keep it in a file that nobody else can read."
            return single(answer, notes=(note,))
        os.write(self._descriptor, f"{secret}\n".encode())
        os.fsync(self._descriptor)
        self._kept = True
        rest = {name: value for name, value in answer.items() if name != self._field}
        return single(rest, notes=(f"the {self._field} is in {self._path}",))
