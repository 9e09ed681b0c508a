"""passt's arguments."""

from __future__ import annotations

import pytest

from metalmark.sandbox import passt


def test_host_loopback_and_ports_stay_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passt, "find_tool", lambda name, **_: f"/usr/bin/{name}")
    argv = passt.passt_argv(9)
    assert "--no-map-gw" in argv
    for flag in ("--tcp-ports", "--udp-ports"):
        assert argv[argv.index(flag) + 1] == "none"
    assert argv[argv.index("--fd") + 1] == "9"


def test_first_reachable_name_server_is_the_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"/etc/resolv.conf": "nameserver 127.0.0.53\n", "other": "nameserver 192.0.2.1\nnameserver 192.0.2.2\n"}
    monkeypatch.setattr(passt, "read_resolv_confs", lambda: texts)
    assert passt.guest_network().nameserver == "192.0.2.1"
    monkeypatch.setattr(passt, "read_resolv_confs", dict)
    assert passt.guest_network().nameserver == ""
