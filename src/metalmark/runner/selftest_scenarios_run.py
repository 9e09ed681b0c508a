"""Scenarios on how a run goes: output, files, ends, iterations."""

from __future__ import annotations

from dataclasses import replace

from metalmark.model import ImageConfig, JobSpec, Outcome
from metalmark.runner.selftest_checks import both, ended, ok, prints, ran
from metalmark.runner.selftest_images import PROGRAM
from metalmark.runner.selftest_scenario import Scenario, Seen, expect

_JOB = JobSpec(image="", timeout_s=60)
_LARGE_FILE = 2_700_000


def _file_output(seen: Seen) -> None:
    ok(seen)
    files = seen.files()
    expect(list(files) == ["/data/result.json"], f"files are {list(files)}")
    expect(files["/data/result.json"].read_bytes() == b'{"ok": 1}', "its content differs")


def _timed_out(seen: Seen) -> None:
    ended(Outcome.TIMED_OUT, 124)(seen)
    wall_s = seen.only.wall_s
    expect(wall_s is None or 0.5 < wall_s < 30, f"it ran for {wall_s} s")


def _partial(seen: Seen) -> None:
    _timed_out(seen)
    expect(seen.out == "before the end\n", f"stdout is {seen.out!r}")


def _streams_apart(seen: Seen) -> None:
    ok(seen)
    expect((seen.out, seen.err) == ("to stdout\n", "to stderr\n"), f"{seen.out!r} and {seen.err!r}")


def _stderr_only(seen: Seen) -> None:
    ok(seen)
    expect((seen.out, seen.err) == ("", "only here\n"), f"{seen.out!r} and {seen.err!r}")


def _binary(seen: Seen) -> None:
    ok(seen)
    expect(seen.stream("stdout") == b"\xff\x00\xfe\x80 and text\n", f"{seen.stream('stdout')!r}")


def _figures(seen: Seen) -> None:
    ok(seen)
    only = seen.only
    expect(only.wall_s is not None and only.wall_s > 0, f"wall_s is {only.wall_s}")
    expect(only.user_s is not None and only.system_s is not None, "CPU times are missing")
    expect((only.user_s or 0) + (only.system_s or 0) >= 0.2, f"300 ms of work count {only.user_s} + {only.system_s} s")
    expect((only.memory_peak_bytes or 0) > 0, f"memory_peak_bytes is {only.memory_peak_bytes}")


def _slept(seen: Seen) -> None:
    ok(seen)
    expect(0.9 <= (seen.only.wall_s or 0) <= 20, f"a second took {seen.only.wall_s} s")


def _canceled(seen: Seen) -> None:
    ended(Outcome.CANCELED, 143)(seen)
    expect(seen.out == "waiting\n", f"what was printed before is {seen.out!r}")


def _no_file(seen: Seen) -> None:
    ok(seen)
    expect(seen.only.output.missing == ("/not/there",), f"missing: {seen.only.output.missing}")


def _large_file(seen: Seen) -> None:
    ok(seen)
    sizes = [file.size_bytes for file in seen.only.output.files]
    expect(sizes == [_LARGE_FILE], f"sizes are {sizes}")


def _two_files(seen: Seen) -> None:
    ok(seen)
    found = {path: kept.read_bytes() for path, kept in seen.files().items()}
    expect(found == {"/data/a": b"A", "/data/b": b"B"}, f"{found}")


def _glob(seen: Seen) -> None:
    ok(seen)
    expect(sorted(seen.files()) == ["/data/out-1.txt", "/data/out-2.txt"], f"{sorted(seen.files())}")


def _all_fields(seen: Seen) -> None:
    _streams_apart(seen)
    expect(len(seen.files()) == 1, f"{seen.files()}")


def _nothing_ran(seen: Seen) -> None:
    ran(0, 0)(seen)


def _three_outputs(seen: Seen) -> None:
    ran(3, 0)(seen)
    for number in (1, 2, 3):
        expect(
            seen.stream("stdout", number) == b"again\n", f"iteration {number} printed {seen.stream('stdout', number)!r}"
        )


def _clean_scratch(seen: Seen) -> None:
    ran(2, 0)(seen)
    for number in (1, 2):
        found = seen.stream("stdout", number)
        expect(b"message.txt" in found and b"mark" not in found, f"iteration {number} saw {found!r:.300}")


RUN_SCENARIOS = (
    Scenario(
        name="file_output",
        about="--output brings a file back",
        words=("write", "/data/result.json", '{"ok": 1}'),
        spec=replace(_JOB, outputs=("/data/result.json",)),
        check=_file_output,
    ),
    Scenario(name="exit_code", about="exit code 42", words=("exit", "42"), check=ended(Outcome.EXITED, 42)),
    Scenario(
        name="timeout_handling",
        about="a benchmark that does not end",
        words=("sleep", "3600"),
        spec=replace(_JOB, timeout_s=2),
        check=_timed_out,
    ),
    Scenario(
        name="timeout_enforced",
        about="one that ignores polite signals too",
        words=("ignore", ";", "sleep", "3600"),
        spec=replace(_JOB, timeout_s=2),
        check=_timed_out,
    ),
    Scenario(
        name="minimum_timeout",
        about="a time-out of one second",
        words=("sleep", "3600"),
        spec=replace(_JOB, timeout_s=1),
        check=_timed_out,
    ),
    Scenario(
        name="timeout_includes_partial_output",
        about="what was printed before the time-out is kept",
        words=("echo", "before the end", ";", "sleep", "3600"),
        spec=replace(_JOB, timeout_s=2),
        check=_partial,
    ),
    Scenario(
        name="stderr_capture",
        about="both streams, each its own",
        words=("echo", "to stdout", ";", "err", "to stderr"),
        check=_streams_apart,
    ),
    Scenario(name="stderr_only", about="nothing on stdout", words=("err", "only here"), check=_stderr_only),
    Scenario(name="empty_output", about="no output at all", words=("exit", "0"), check=prints("")),
    Scenario(
        name="binary_output",
        about="bytes that are not text",
        words=("bytes", "ff00fe80", ";", "echo", " and text"),
        check=_binary,
    ),
    Scenario(
        name="unique_output_validation",
        about="a random word comes back",
        words=("echo", "{token}"),
        check=prints("{token}\n"),
    ),
    Scenario(
        name="output_held",
        about="--live off: output held until the end",
        words=("echo", "held", ";", "flood", "100000", "stderr"),
        spec=replace(_JOB, live=False),
        check=prints("held\n"),
    ),
    Scenario(
        name="rapid_exit",
        about="output of a command that ends at once",
        words=("echo", "quick"),
        check=prints("quick\n"),
    ),
    Scenario(
        name="signal_exit",
        about="exit code 137 is not a signal",
        words=("exit", "137"),
        check=ended(Outcome.EXITED, 137),
    ),
    Scenario(name="signal_death", about="a signal is one", words=("raise", "10"), check=ended(Outcome.SIGNALED, 138)),
    Scenario(
        name="descendants_ended",
        about="a descendant that stays behind does not keep the run",
        words=("daemon", ";", "echo", "gone"),
        check=prints("gone\n"),
    ),
    Scenario(
        name="metrics_output_present",
        about="wall time, CPU time and peak memory",
        words=("spin", "300"),
        check=_figures,
    ),
    Scenario(
        name="metrics_wall_clock_reasonable", about="a second is about a second", words=("sleep", "1"), check=_slept
    ),
    Scenario(
        name="job_cancelled",
        about="a signal to the runner stops the benchmark and keeps its output",
        words=("echo", "waiting", ";", "sleep", "3600"),
        cancel_after_s=1.5,
        check=_canceled,
    ),
    Scenario(
        name="failed_with_partial_output",
        about="output before a failure",
        words=("echo", "so far", ";", "exit", "1"),
        check=both(ended(Outcome.EXITED, 1), lambda seen: expect(seen.out == "so far\n", seen.out)),
    ),
    Scenario(
        name="missing_file_output",
        about="an output file that is not there is named",
        words=("echo", "x"),
        spec=replace(_JOB, outputs=("/not/there",)),
        check=_no_file,
    ),
    Scenario(
        name="large_file_output",
        about="an output file of 2.7 MB",
        words=("size", "/data/large", str(_LARGE_FILE)),
        spec=replace(_JOB, outputs=("/data/large",)),
        check=_large_file,
    ),
    Scenario(
        name="multi_file_output",
        about="two output files",
        words=("write", "/data/a", "A", ";", "write", "/data/b", "B"),
        spec=replace(_JOB, outputs=("/data/a", "/data/b")),
        check=_two_files,
    ),
    Scenario(
        name="glob_output",
        about="output files by a glob, from the working directory",
        config=ImageConfig(
            cmd=(PROGRAM, "write", "out-1.txt", "1", ";", "write", "out-2.txt", "2", ";", "write", "other", "3"),
            workdir="/data",
        ),
        spec=replace(_JOB, outputs=("out-*.txt",)),
        check=_glob,
    ),
    Scenario(
        name="completed_with_all_fields",
        about="both streams and a file",
        words=("echo", "to stdout", ";", "err", "to stderr", ";", "write", "/data/f", "F"),
        spec=replace(_JOB, outputs=("/data/f",)),
        check=_all_fields,
    ),
    Scenario(
        name="multiple_iterations",
        about="three iterations",
        words=("echo", "again"),
        spec=replace(_JOB, iterations=3),
        check=_three_outputs,
    ),
    Scenario(
        name="clean_scratch",
        about="what one iteration wrote is gone in the next",
        words=("list", "/data", ";", "write", "/data/mark", "x"),
        spec=replace(_JOB, iterations=2),
        check=_clean_scratch,
    ),
    Scenario(
        name="zero_iterations",
        about="--iter 0 runs nothing",
        words=("echo", "x"),
        spec=replace(_JOB, iterations=0),
        check=_nothing_ran,
    ),
    Scenario(
        name="allow_failure_false_aborts",
        about="the first failure ends the run",
        words=("exit", "1"),
        spec=replace(_JOB, iterations=3),
        check=ran(1, 1),
    ),
    Scenario(
        name="allow_failure_true_continues",
        about="failures allowed: all iterations, exit code 0",
        words=("exit", "1"),
        spec=replace(_JOB, iterations=3, allow_failure=True),
        check=ran(3, 0),
    ),
)
