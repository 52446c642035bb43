"""One job at a time on this machine's GPUs, in the order of asking, for all apps and shells of one user."""

import fcntl
import json
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from dreamspace.files import write_json
from dreamspace.jobs.process import ProcessIdentity, is_alive

LOCK_DIR_VARIABLE = "DREAMSPACE_LOCK_DIR"
WORKERS_LOCK_VARIABLE = "DREAMSPACE_WORKERS_LOCK"


def lock_folder() -> Path:
    """The folder of the machine's lock and queue: `DREAMSPACE_LOCK_DIR`, else the user's in the temp folder.

    Raises:
        ValueError: if it cannot be made, or belongs to someone else.
    """
    chosen = os.environ.get(LOCK_DIR_VARIABLE)
    folder = Path(chosen) if chosen else Path(tempfile.gettempdir()) / f"dreamspace-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"The lock folder {folder} cannot be made: {error.strerror}. "
            f"Set {LOCK_DIR_VARIABLE} to a folder that you may write to."
        ) from None
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ValueError(
            f"The lock folder {folder} belongs to someone else. "
            f"Set {LOCK_DIR_VARIABLE} to a folder of your own on this machine's disk."
        )
    return folder


class GpuLock:
    """A place in the queue for the GPUs, and the lock itself once `acquire` has returned True.

    A supervisor goes ahead when its ticket is the oldest whose process lives, no other supervisor holds
    `gpu.lock`, and no worker process of an earlier one (which may have been killed) holds `workers.lock`.
    The kernel frees both when their holders die.

    Used as a context manager, which leaves the queue and frees the lock.

    Attributes:
        waits_for: what the last `acquire` found in the way, first in line first.
    """

    def __init__(self, job_dir: Path) -> None:
        self.folder = lock_folder()
        self.waits_for: tuple[str, ...] = ()
        self._file: int | None = None
        self._ticket = self.folder / f"{time.time_ns():020d}-{os.getpid()}.json"
        identity = ProcessIdentity.of(os.getpid())
        write_json(self._ticket, {"job_dir": str(job_dir), "process": vars(identity)})

    @property
    def workers_path(self) -> Path:
        """The file on which every worker process holds a shared lock for as long as it lives."""
        return self.folder / "workers.lock"

    def __enter__(self) -> "GpuLock":
        return self

    def __exit__(self, *exception: object) -> None:
        self._ticket.unlink(missing_ok=True)
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def acquire(self) -> bool:
        """Take the lock if it is this job's turn; never waits."""
        self.waits_for = self._jobs_ahead()
        if self.waits_for:
            return False
        if self._file is None:
            self._file = _try_lock(self.folder / "gpu.lock")
        if self._file is None:
            self.waits_for = ("another job",)
            return False
        workers = _try_lock(self.workers_path)
        if workers is None:
            self.waits_for = ("the last processes of a job that was killed",)
            return False
        os.close(workers)
        return True

    def _jobs_ahead(self) -> tuple[str, ...]:
        names = []
        for ticket in sorted(self.folder.glob("[0-9]*.json")):
            if ticket.name >= self._ticket.name:
                break
            with suppress(FileNotFoundError):  # Its owner may leave the queue at any moment.
                content = json.loads(ticket.read_text(encoding="utf-8"))
                if is_alive(ProcessIdentity(**content["process"])):
                    names.append(Path(content["job_dir"]).name)
                else:
                    ticket.unlink()
        return tuple(names)


def hold_workers_lock(path: Path) -> None:
    """Hold a shared lock on `path` until this process, and every child forked from it, is gone."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(file, fcntl.LOCK_SH)
    os.utime(file)


def _try_lock(path: Path) -> int | None:
    """Lock the file exclusively and return its descriptor; None if it is held, or was replaced meanwhile."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file).st_ino == path.stat().st_ino:
            os.utime(file)  # Temp folders are cleared of old files; a lock in use is not old.
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(file)
    return None
