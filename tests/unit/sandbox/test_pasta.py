from __future__ import annotations

from pathlib import Path

import pytest

from metalmark.sandbox.pasta import PastaPlan, pasta_argv, resolv_conf_of


def test_nothing_of_the_host_is_forwarded_or_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metalmark.sandbox.pasta.find_tool", lambda name, **_: f"/bin/{name}")
    argv = pasta_argv(
        PastaPlan(network_namespace=Path("/w/netns"), mount_namespace=17, pid_file=Path("/w/p"), log=Path("/w/l"))
    )
    assert argv[:3] == ["/bin/nsenter", "--mount=/proc/self/fd/17", "/bin/pasta"]
    assert "--no-map-gw" in argv
    for option in ("-t", "-u", "-T", "-U"):
        assert argv[argv.index(option) + 1] == "none"
    assert argv[-2:] == ["--netns", "/w/netns"]


def test_a_resolver_on_the_loopback_is_passed_over() -> None:
    stub = "nameserver 127.0.0.53\noptions edns0\n"
    real = "# made by x\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch example\n"
    assert (
        resolv_conf_of({"/etc/resolv.conf": stub, "/run/r": real}) == "nameserver 192.0.2.1\nnameserver fe80::1%eth0\n"
    )
    assert resolv_conf_of({"/etc/resolv.conf": real, "/run/r": "nameserver 9.9.9.9"}).startswith("nameserver 192.0.2.1")
    assert resolv_conf_of({"/etc/resolv.conf": stub}) == ""
    assert resolv_conf_of({}) == ""
