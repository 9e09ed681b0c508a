from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.cli.job_options import JobOptions, repeat_flags, split_words
from metalmark.model import MIB, InputError, JobSpec, OutputLimits, Resources, RootfsMode, SandboxName

LISTS = frozenset(("--entrypoint", "--cmd"))
VALUED = frozenset(("--image", "--memory", "--env"))


def job(**fields: object) -> JobSpec:
    return JobOptions(**{"image": "x", **fields}).job()  # type: ignore[arg-type]


def test_defaults_are_those_of_the_documentation() -> None:
    spec = job()
    assert spec == JobSpec(image="x")
    assert (spec.timeout_s, spec.iterations, spec.grace_s, spec.live) == (300, 1, 1, True)
    assert spec.resources == Resources(vcpus=1, memory_bytes=512 * MIB, disk_bytes=1024 * MIB)
    assert spec.output_limits == OutputLimits(stream_bytes=25 * MIB, files_bytes=25 * MIB, file_count=255)


def test_every_flag_reaches_the_job() -> None:
    spec = job(
        sandbox="qemu", timeout="2m", iterations="3", allow_failure=True, entrypoint=["a"], cmd=["b"],
        env=["A=1", "A=2", "B=x=y", "E="], user="u:g", workdir="/w", network=True, output=["/o*"], vcpus="2",
        memory="1G", disk="64", cpus="1-2", rootfs="ext4", max_output_size="1K", max_file_count="3",
        grace_period="1500ms", platform="arm64", live="off",
    )  # fmt: skip
    assert spec.sandbox is SandboxName.QEMU
    assert (spec.timeout_s, spec.grace_s, spec.iterations, spec.allow_failure) == (120, 1.5, 3, True)
    assert (spec.overrides.entrypoint, spec.overrides.cmd) == (("a",), ("b",))
    assert spec.overrides.env == {"A": "2", "B": "x=y", "E": ""}
    assert (spec.overrides.user, spec.overrides.workdir) == ("u:g", "/w")
    assert spec.resources == Resources(vcpus=2, memory_bytes=1024 * MIB, disk_bytes=64 * MIB)
    assert (spec.cpus, spec.rootfs, spec.network, spec.live) == ((1, 2), RootfsMode.EXT4, True, False)
    assert spec.output_limits == OutputLimits(stream_bytes=1024, files_bytes=1024, file_count=3)
    assert spec.platform.startswith("linux/arm64")


@pytest.mark.parametrize(
    ("field", "value", "flag"),
    [
        ("sandbox", "docker", "--sandbox"),
        ("timeout", "soon", "--timeout"),
        ("timeout", "-1", "--timeout"),
        ("timeout", "2147483648", "--timeout"),
        ("iterations", "-1", "--iter"),
        ("iterations", "1.5", "--iter"),
        ("iterations", "100001", "--iter"),
        ("iterations", "٣", "--iter"),
        ("env", ["NOVALUE"], "--env"),
        ("env", ["=x"], "--env"),
        ("env", ["A=\0"], "--env"),
        ("workdir", "relative", "--workdir"),
        ("user", "", "--user"),
        ("vcpus", "0", "--vcpus"),
        ("vcpus", "256", "--vcpus"),
        ("memory", "1", "--memory"),
        ("memory", "536870912", "--memory"),
        ("memory", "many", "--memory"),
        ("memory", "512X", "--memory"),
        ("disk", "63", "--disk"),
        ("disk", "1K", "--disk"),
        ("cpus", "2-1", "--cpus"),
        ("cpus", "", "--cpus"),
        ("rootfs", "btrfs", "--rootfs"),
        ("output", [""], "--output"),
        ("output", ["x" * 4097], "--output"),
        ("max_output_size", "-5", "--max-output-size"),
        ("max_file_count", "x", "--max-file-count"),
        ("grace_period", "901", "--grace-period"),
        ("platform", "a/b/c/d", "--platform"),
        ("live", "yes", "--live"),
        ("max_symlinks", "x", "--max-symlinks"),
        ("sandbox_log_level", "loud", "--sandbox-log-level"),
        ("sandbox_log_level", "debug", "--sandbox-log-level"),
        ("image", "", "IMAGE"),
    ],
)
def test_bad_value_is_refused_by_flag_and_value(field: str, value: object, flag: str) -> None:
    with pytest.raises(InputError) as caught:
        job(**{field: value})
    assert caught.value.field == flag
    shown = value[0] if isinstance(value, list) else value
    assert caught.value.value in (shown, value)
    assert caught.value.why


def test_command_after_dashes_replaces_cmd_and_not_the_entrypoint() -> None:
    overrides = job(command=["a", "b"]).overrides
    assert (overrides.cmd, overrides.entrypoint) == (("a", "b"), None)


def test_empty_entrypoint_is_none_at_all() -> None:
    assert job(entrypoint=[""], cmd=["ls"]).overrides.entrypoint == ()
    assert job(entrypoint=["", "x"]).overrides.entrypoint == ("", "x")


def test_command_after_dashes_and_cmd_contradict_each_other() -> None:
    with pytest.raises(InputError, match="--cmd"):
        job(command=["a"], cmd=["b"])


def test_max_symlinks_goes_with_none_only() -> None:
    options = JobOptions(image="x", sandbox="none", max_symlinks="40")
    options.job()
    assert "no effect" in options.warnings[0]
    with pytest.raises(InputError, match="--max-symlinks"):
        job(sandbox="qemu", max_symlinks="40")


def test_time_out_of_zero_is_the_default_and_said() -> None:
    options = JobOptions(image="x", timeout="0")
    assert options.job().timeout_s == 300
    assert options.warnings == ["--timeout 0 means the default, 300 s"]


@pytest.mark.parametrize(
    ("words", "own", "rest"),
    [
        (["img"], ["img"], []),
        (["img", "--", "sh", "-c", "x"], ["img"], ["sh", "-c", "x"]),
        (["img", "--", "a", "--", "b"], ["img"], ["a", "--", "b"]),
        (["--"], [], []),
    ],
)
def test_first_dashes_part_the_words(words: list[str], own: list[str], rest: list[str]) -> None:
    assert split_words(words) == (own, rest)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--image i --cmd a b c", "--image i --cmd=a --cmd=b --cmd=c"),
        ("--cmd a b --image i", "--cmd=a --cmd=b --image i"),
        ("--image=i --cmd a b --json", "--image=i --cmd=a --cmd=b --json"),
        ("img --cmd a b", "img --cmd=a --cmd=b"),
        ("--cmd a img", "--cmd=a img"),
        ("--memory 5 --cmd a img", "--memory 5 --cmd=a img"),
        ("img --cmd=-x y", "img --cmd=-x --cmd=y"),
        ("img --cmd --json", "img --cmd --json"),
        ("img --entrypoint sh --cmd -c", "img --entrypoint=sh --cmd -c"),
        ("img --entrypoint a --cmd b", "img --entrypoint=a --cmd=b"),
    ],
)
def test_lists_of_words(words: str, expected: str) -> None:
    assert repeat_flags(words.split(), lists=LISTS, valued=VALUED) == expected.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--cmd a b", "--cmd=a --cmd=b"),
        ("--memory 5 --cmd a b --json", "--memory 5 --cmd=a --cmd=b --json"),
        ("--cmd=a --cmd b c", "--cmd=a --cmd=b --cmd=c"),
    ],
)
def test_lists_of_words_where_no_image_is_taken(words: str, expected: str) -> None:
    assert repeat_flags(words.split(), lists=LISTS, valued=VALUED, image=False) == expected.split()


def test_list_of_too_many_words_is_refused() -> None:
    with pytest.raises(InputError, match="--cmd"):
        repeat_flags(["--image", "i", "--cmd", *["x"] * 65], lists=LISTS, valued=VALUED)


@given(st.lists(st.text(min_size=1, alphabet="abc=-"), max_size=6))
def test_words_are_never_lost_or_reordered(words: list[str]) -> None:
    line = ["--image", "i", *(word for word in words if word not in {"--", "--cmd"})]
    result = repeat_flags(line, lists=LISTS, valued=VALUED)
    assert result == line
