from __future__ import annotations

import json

import pytest

from metalmark.model import NotAnImage, Platform
from metalmark.oci.configuration import Configuration, read_configuration

BASE: dict[str, object] = {"architecture": "arm64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}


def read(**fields: object) -> Configuration:
    return read_configuration(json.dumps({**BASE, **fields}).encode(), what="configuration")


def test_reads_what_a_run_needs() -> None:
    found = read(
        variant="v8",
        created="2020-01-01T00:00:00Z",
        config={
            "Entrypoint": ["/bin/a", "-b"],
            "Cmd": ["c"],
            "Env": ["A=1", "B="],
            "WorkingDir": "/w",
            "User": "u:g",
            "Labels": {"k": "v", "empty": ""},
            "ExposedPorts": {"80/tcp": {}},
        },
        rootfs={"type": "layers", "diff_ids": ["sha256:" + "0" * 64]},
    )
    assert found.platform == Platform("linux", "arm64", "v8")
    assert found.config.entrypoint == ("/bin/a", "-b")
    assert found.config.cmd == ("c",)
    assert found.config.env == ("A=1", "B=")
    assert (found.config.workdir, found.config.user) == ("/w", "u:g")
    assert found.config.labels == {"k": "v", "empty": ""}
    assert [str(diff_id) for diff_id in found.diff_ids] == ["sha256:" + "0" * 64]


@pytest.mark.parametrize(
    "config", [None, {}, {"Entrypoint": None, "Cmd": None, "Env": None, "Labels": None, "User": None}]
)
def test_what_docker_writes_as_null_is_nothing(config: object) -> None:
    assert read(config=config).config.entrypoint == ()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"architecture": None}, "architecture"),
        ({"os": ""}, "os"),
        ({"rootfs": {"type": "strange", "diff_ids": []}}, r"rootfs\.type"),
        ({"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "A" * 64]}}, r"diff_ids\[0\]"),
        ({"rootfs": None}, "rootfs"),
        ({"config": {"Env": "A=1"}}, r"config\.Env"),
        ({"config": {"Entrypoint": "/bin/sh"}}, r"config\.Entrypoint"),
        ({"config": {"Cmd": [1]}}, r"config\.Cmd\[0\]"),
        ({"config": {"Labels": {"a": 1}}}, r"config\.Labels\.a"),
        ({"config": 3}, "config"),
    ],
)
def test_a_malformed_field_is_named(fields: dict[str, object], named: str) -> None:
    with pytest.raises(NotAnImage, match=named):
        read(**fields)
