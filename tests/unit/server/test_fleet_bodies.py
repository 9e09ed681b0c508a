"""Specs and runners on the wire: every field, and null where there is nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from metalmark.model import Capabilities, Demand, ResourceName, Slug, new_id
from metalmark.server.fleet_bodies import runner_body, spec_body
from metalmark.store import RunnerProof, RunnerRecord, SpecRecord

MADE = datetime(2026, 1, 31, 10, 5, 0, 999_999, tzinfo=UTC)
SPEC = SpecRecord(
    id=new_id(),
    name=ResourceName("Small VM"),
    slug=Slug("small-vm"),
    demand=Demand(
        os="linux", architecture="x86_64", sandbox="firecracker", vcpus=2, memory_bytes=4 * 2**30, disk_bytes=10 * 2**30
    ),
    anonymous=False,
    fallback=MADE,
    created=MADE,
    modified=MADE,
    archived=None,
)
RUNNER = RunnerRecord(
    id=new_id(),
    name=ResourceName("Rack 7"),
    slug=Slug("rack-7"),
    spec_ids=(SPEC.id,),
    last_heartbeat=None,
    created=MADE,
    modified=MADE,
    archived=None,
    key_created=MADE,
    key_digest="0" * 64,
)


def test_a_spec_has_every_field() -> None:
    assert spec_body(SPEC).model_dump(mode="json") == {
        "uuid": str(SPEC.id),
        "name": "Small VM",
        "slug": "small-vm",
        "os": "linux",
        "architecture": "x86_64",
        "sandbox": "firecracker",
        "cpu": 2,
        "memory": 4294967296,
        "disk": 10737418240,
        "network": False,
        "anonymous": False,
        "fallback": "2026-01-31T10:05:00Z",
        "created": "2026-01-31T10:05:00Z",
        "modified": "2026-01-31T10:05:00Z",
        "archived": None,
    }


def test_a_spec_without_a_sandbox_has_null() -> None:
    plain = replace(SPEC, demand=replace(SPEC.demand, sandbox=None), fallback=None, archived=MADE)
    said = spec_body(plain).model_dump(mode="json")
    assert (said["sandbox"], said["fallback"], said["archived"]) == (None, None, "2026-01-31T10:05:00Z")


def test_a_runner_has_every_field() -> None:
    assert runner_body(RUNNER).model_dump(mode="json") == {
        "uuid": str(RUNNER.id),
        "name": "Rack 7",
        "slug": "rack-7",
        "specs": [str(SPEC.id)],
        "archived": None,
        "last_heartbeat": None,
        "key_created": "2026-01-31T10:05:00Z",
        "created": "2026-01-31T10:05:00Z",
        "modified": "2026-01-31T10:05:00Z",
        "proof": None,
    }


def test_a_runner_says_what_it_proved() -> None:
    said = Capabilities(os="linux", sandboxes=frozenset({"qemu", ""}), vcpus=8, network=True)
    proof = RunnerProof(capabilities=said, proved=MADE, version="1", protocol="metalmark.1", facts={"model": "x"})
    shown = runner_body(RUNNER, proof).model_dump(mode="json")
    assert shown["proof"] == {
        "proved": "2026-01-31T10:05:00Z",
        "version": "1",
        "protocol": "metalmark.1",
        "os": "linux",
        "architecture": None,
        "sandboxes": ["none", "qemu"],
        "cpu": 8,
        "memory": None,
        "disk": None,
        "network": True,
        "facts": {"model": "x"},
    }
