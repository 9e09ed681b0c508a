"""Update artifacts of other versions, made from a real one: the project's wheel with a few lines changed."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from metalmark.wire import UpdateArtifact, UpdateManifest, UpdateWheel, write_artifact


def read(artifact: Path) -> tuple[UpdateManifest, dict[str, bytes]]:
    """Return what an artifact holds."""
    with artifact.open("rb") as stream:
        found = UpdateArtifact(stream)
        return found.manifest, {wheel.file: b"".join(pieces) for wheel, pieces in found.wheels()}


def variant(artifact: Path, target: Path, version: str, changes: Mapping[str, tuple[str, str]] | None = None) -> Path:
    """Write an artifact of another version.

    Args:
        artifact: The one that it is made from.
        target: Where to.
        version: Of the project's wheel.
        changes: For modules of the project, a text that is in them and what stands in its place.
    """
    manifest, wheels = read(artifact)
    old = next(name for name in wheels if name.startswith("metalmark-"))
    new = f"metalmark-{version}-py3-none-any.whl"
    wheels[new] = _changed(wheels.pop(old), manifest.version, version, dict(changes or {}))
    digest = hashlib.sha256(wheels[new]).hexdigest()
    kept = [line for line in manifest.requirements if not line.startswith("metalmark==")]
    made = manifest.model_copy(
        update={
            "version": version,
            "requirements": (*kept, f"metalmark=={version} --hash=sha256:{digest}"),
            "wheels": tuple(
                UpdateWheel(file=name, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
                for name, data in sorted(wheels.items())
            ),
        }
    )
    with target.open("wb") as stream:
        write_artifact(stream, made, {name: io.BytesIO(data) for name, data in wheels.items()})
    return target


def _changed(wheel: bytes, old: str, new: str, changes: dict[str, tuple[str, str]]) -> bytes:
    target, record = io.BytesIO(), []
    changes["metalmark/__init__.py"] = (f'"{old}"', f'"{new}"')
    with zipfile.ZipFile(io.BytesIO(wheel)) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in source.infolist():
            data = source.read(entry)
            name = entry.filename.replace(f"metalmark-{old}.dist-info", f"metalmark-{new}.dist-info")
            if name.endswith(".dist-info/RECORD"):
                continue
            if name.endswith(".dist-info/METADATA"):
                data = re.sub(rb"(?m)^Version: .*$", f"Version: {new}".encode(), data, count=1)
            if name in changes:
                before, after = changes.pop(name)
                assert before in data.decode(), f"{name} has no {before!r}"
                data = data.decode().replace(before, after).encode()
            checksum = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={checksum},{len(data)}")
            entry.filename = name
            archive.writestr(entry, data)
        name = f"metalmark-{new}.dist-info/RECORD"
        archive.writestr(name, "\n".join([*record, f"{name},,"]) + "\n")
    assert not changes, f"the wheel has no {sorted(changes)}"
    return target.getvalue()
