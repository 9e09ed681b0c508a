"""Every request to Firecracker against the published description of its API. No Firecracker runs here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from metalmark.model import MIB
from metalmark.sandbox.firecracker_api import boot_source, drive, machine_config, vsock

DESCRIPTION = Path(__file__).parents[2] / "data/firecracker-api.yaml"


@cache
def description() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(DESCRIPTION.read_text(encoding="utf-8"))
    return loaded


def check(method: str, path: str, body: Mapping[str, object]) -> None:
    """Validate a body; properties that the description does not know are refused too."""
    operation = description()["paths"][path][method]
    (parameter,) = [one for one in operation["parameters"] if one["in"] == "body"]
    name = parameter["schema"]["$ref"].rpartition("/")[2]
    schema = {**description()["definitions"][name], "additionalProperties": False}
    jsonschema.Draft4Validator({**schema, "definitions": description()["definitions"]}).validate(dict(body))


def test_description_is_of_the_pinned_version() -> None:
    assert description()["info"]["version"] == "1.15.1"


@pytest.mark.parametrize("vcpus", [1, 2, 32])
def test_described_machine_config(vcpus: int) -> None:
    body = machine_config(vcpus=vcpus, memory_bytes=512 * MIB + 1)
    check("put", "/machine-config", body)
    assert body["mem_size_mib"] == 513


def test_described_boot_source() -> None:
    check("put", "/boot-source", boot_source(kernel=Path("/k"), initramfs=Path("/i"), command_line="quiet -- init"))


@pytest.mark.parametrize("read_only", [True, False])
def test_described_drive(read_only: bool) -> None:
    body = drive(name="disk0", path=Path("/d"), read_only=read_only)
    check("put", "/drives/{drive_id}", body)
    assert body["cache_type"] == ("Unsafe" if read_only else "Writeback")


def test_described_vsock_and_start() -> None:
    check("put", "/vsock", vsock(socket_path="vsock.sock"))
    check("put", "/actions", {"action_type": "InstanceStart"})


def test_check_itself_refuses_what_is_not_described() -> None:
    with pytest.raises(jsonschema.ValidationError):
        check("put", "/vsock", {**vsock(socket_path="v"), "speed": 1})
    with pytest.raises(jsonschema.ValidationError):
        check("put", "/actions", {"action_type": "Dance"})
