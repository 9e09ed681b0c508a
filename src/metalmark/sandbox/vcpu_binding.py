"""Each of a VMM's vCPU threads on a CPU of its own, its other threads on the helper CPUs."""

from __future__ import annotations

from collections.abc import Sequence

from metalmark.model import BoxLost
from metalmark.system import bind_others, bind_thread


def bind_vmm(pid: int, vcpu_threads: Sequence[int], *, cpus: Sequence[int], helper_cpus: Sequence[int]) -> None:
    """Bind the threads; threads that the VMM starts later inherit the helpers' CPUs from its main thread. Blocking.

    Args:
        pid: The VMM.
        vcpu_threads: Thread ids, vCPU 0 first.
        cpus: vCPU *n* goes to the *n*-th; empty: unbound.
        helper_cpus: For all other threads; empty: unbound.

    Raises:
        BoxLost: The VMM has ended meanwhile, or the kernel put a thread elsewhere.
    """
    try:
        for number, thread in enumerate(vcpu_threads):
            if cpus:
                wanted = frozenset((cpus[number % len(cpus)],))
                found = bind_thread(thread, wanted)
                if found != wanted:
                    raise BoxLost(f"vCPU {number} is bound to {sorted(found)} instead of {sorted(wanted)}")
        if helper_cpus:
            bind_others(pid, helper_cpus, except_tids=vcpu_threads)
    except OSError as error:
        raise BoxLost("a thread of the VMM could not be bound to its CPU", why=str(error.strerror)) from error
