"""Machines for tests: recorded ones (from hwloc's test suite, see recordings/LICENSE) and made-up ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

_FOLDER = Path(__file__).parent / "recordings"


def plant(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def recorded(root: Path, name: str) -> Path:
    return plant(root, json.loads((_FOLDER / f"{name}.json").read_text()))
