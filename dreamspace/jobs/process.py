"""Processes: which one is meant, whether it lives, what descends from it, and dying together."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import psutil

# Through this variable a worker learns whose death is its own.
SUPERVISOR_VARIABLE = "DREAMSPACE_SUPERVISOR"

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True)
class ProcessIdentity:
    """A process that cannot be mistaken for a later one of the same pid. Times are Unix seconds."""

    pid: int
    create_time: float
    boot_time: float

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """Raises psutil.NoSuchProcess if there is none."""
        return cls(pid, psutil.Process(pid).create_time(), psutil.boot_time())


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether that very process lives; a zombie, dead but not yet reaped, does not."""
    try:
        process = psutil.Process(identity.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        create_time = process.create_time()
    except psutil.NoSuchProcess:
        return False
    # On Linux setting the clock moves both times, elsewhere neither: one of the comparisons always holds.
    since_boot = create_time - psutil.boot_time()
    return (
        abs(create_time - identity.create_time) < 0.5
        or abs(since_boot - (identity.create_time - identity.boot_time)) < 0.05
    )


def adopt_orphans() -> None:
    """On Linux, make this process the parent of descendants whose own parent dies.

    `torchrun` starts each rank in a session of its own, so that signals to a process group do not reach them;
    as descendants they stay in sight.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[psutil.Process]:
    """The living descendants of this process, whatever group or session they are in."""
    living = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
    return living


def signal_descendants(signum: int) -> None:
    """Send a signal to every living descendant of this process."""
    for process in descendants():
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signum)


def kill_descendants() -> None:
    """SIGKILL until no descendant of this process lives; returns when the last one is gone."""
    while descendants():
        signal_descendants(signal.SIGKILL)
        time.sleep(0.02)


def lead_group_and_die_with_parent() -> None:
    """For `preexec_fn`: a process group of its own, and on Linux SIGKILL when the parent dies."""
    os.setpgid(0, 0)
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def die_with(supervisor: ProcessIdentity) -> None:
    """End this worker process, by SIGKILL, when its supervisor dies: nothing may train unlocked.

    On Linux the death of the direct parent does it (the supervisor, or `torchrun`, which itself dies with
    the supervisor); elsewhere a thread looks once a second.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(supervisor,), daemon=True).start()
    if not is_alive(supervisor):  # It may have died before the line above.
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(supervisor: ProcessIdentity) -> None:
    while is_alive(supervisor):
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)
