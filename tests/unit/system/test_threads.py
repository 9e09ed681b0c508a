from __future__ import annotations

import os
import threading
from pathlib import Path

from metalmark.system import bind_others, bind_thread, threads_of


def test_names_are_read_and_what_ended_is_left_out(tmp_path: Path) -> None:
    for tid, name in ((12, "CPU 1/TCG"), (9, "main"), (10, None)):
        folder = tmp_path / "9/task" / str(tid)
        folder.mkdir(parents=True)
        if name:
            (folder / "comm").write_text(f"{name}\n")
    assert [(thread.tid, thread.name) for thread in threads_of(9, tmp_path)] == [(9, "main"), (12, "CPU 1/TCG")]
    assert threads_of(8, tmp_path) == ()


def test_one_thread_is_bound_and_the_others_elsewhere() -> None:
    allowed = os.sched_getaffinity(0)
    first, last = min(allowed), max(allowed)
    done = threading.Event()
    started = threading.Event()
    tid = 0

    def wait() -> None:
        nonlocal tid
        tid = threading.get_native_id()
        started.set()
        done.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        started.wait()
        assert bind_thread(tid, (last,)) == {last}
        bound = bind_others(os.getpid(), (first,), except_tids=(tid,))
        assert os.getpid() in bound
        assert tid not in bound
        assert os.sched_getaffinity(tid) == {last}
        assert os.sched_getaffinity(0) == {first}
    finally:
        done.set()
        thread.join()
        bind_others(os.getpid(), allowed, except_tids=())
