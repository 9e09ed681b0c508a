from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.runner.examinations import V2, examination, healthy_facts, machine

from metalmark.model import MIB
from metalmark.runner import doctor_checks_host as checks
from metalmark.runner.examination import Examination
from metalmark.runner.finding import Status
from metalmark.runner.host_facts import CgroupFacts, VirtualisationFacts


def names(found: Examination) -> set[str]:
    return {note.name for note in checks.host_notes(found)}


@pytest.mark.parametrize("purpose", ["state", "cache", "run"])
def test_a_full_folder_is_named(purpose: str) -> None:
    spaces = tuple(
        replace(space, free_bytes=10 * MIB) if space.purpose == purpose else space for space in healthy_facts().spaces
    )
    finding = checks.check_free_space(examination(facts={"spaces": spaces}))
    assert finding.status is Status.UNUSABLE
    assert f"{purpose} /var/{purpose} 10.0 MiB free" in finding.found
    assert "METALMARK_HOME" in finding.fix


def test_a_folder_that_cannot_be_written_is_named() -> None:
    spaces = tuple(replace(space, writable=space.purpose != "cache") for space in healthy_facts().spaces)
    finding = checks.check_free_space(examination(facts={"spaces": spaces}))
    assert finding.status is Status.UNUSABLE
    assert finding.found == "/var/cache cannot be written"


def test_isolation_needs_two_cpus() -> None:
    finding = checks.check_cpu_topology(examination())
    assert finding.status is Status.OK
    assert "housekeeping 0, benchmark 1-3" in finding.found
    alone = checks.check_cpu_topology(examination(facts={"topology": machine(1)}))
    assert alone.status is Status.UNUSABLE
    assert alone.fix == "give the machine two or more CPUs"
    confined = checks.check_cpu_topology(examination(facts={"topology": machine(4, allowed=(2,))}))
    assert confined.status is Status.UNUSABLE
    assert "0-3" in confined.fix


def test_a_quiet_host_has_no_notes() -> None:
    assert names(examination()) == set()


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"irqbalance": True}, "irqbalance"),
        ({"virtualisation": VirtualisationFacts(guest=True, nx_huge_pages="never")}, "virtual-host"),
        ({"boot_arguments": "quiet"}, "boot-isolation"),
        ({"cgroups": CgroupFacts(version="hybrid", controllers=V2)}, "cgroup-version"),
        ({"topology": machine(4, threads=2)}, "shared-cores"),
        ({"virtualisation": VirtualisationFacts(guest=False)}, "kvm-start"),
    ],
)
def test_each_note_has_its_cause(facts: dict[str, Any], name: str) -> None:
    assert names(examination(facts=facts)) == {name}


def test_favoured_moves_settle_the_slow_start() -> None:
    cgroups = CgroupFacts(version="v2", controllers=V2, favordynmods=True)
    facts = {"virtualisation": VirtualisationFacts(guest=False), "cgroups": cgroups}
    assert names(examination(facts=facts)) == set()
    facts = {"virtualisation": VirtualisationFacts(guest=False), "kernel_release": "5.10.0-30-amd64"}
    assert names(examination(facts=facts)) == set()


def test_a_benchmark_cpu_beside_a_housekeeping_thread_is_named() -> None:
    note = checks.host_notes(examination(facts={"topology": machine(4, threads=2)}))[0]
    assert "benchmark CPU 1 shares a core with housekeeping" in note.text


def test_one_cpu_needs_no_boot_isolation() -> None:
    assert names(examination(facts={"topology": machine(1), "boot_arguments": "quiet"})) == set()
