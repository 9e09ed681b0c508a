from __future__ import annotations

from metalmark.model import JobEnd, JobIteration
from metalmark.render import job_table


def test_table_has_a_row_an_iteration_and_no_escapes() -> None:
    rows = (
        JobIteration(number=1, outcome="exited", exit_code=0, wall_s=1.5),
        JobIteration(number=2, outcome="infrastructure", exit_code=125, error="box \x1b[31mlost\nhere"),
    )
    host = {"sandbox": "qemu", "accelerator": "tcg", "verdict": "emulated"}
    text = job_table(JobEnd(status="failed", exit_code=125, iterations=rows, host=host))
    assert text.splitlines() == [
        "status   failed",
        "sandbox  qemu (tcg)",
        "",
        "#  outcome         exit  wall",
        "1  exited             0  1.50 s",
        "2  infrastructure   125  -",
        "",
        "note: the processor was emulated, so these times say nothing about the machine",
        "iteration 2: box \\x1b[31mlost\\nhere",
    ]


def test_job_without_iterations_has_its_status_alone() -> None:
    assert job_table(JobEnd(status="canceled", exit_code=130)) == "status   canceled\n"
