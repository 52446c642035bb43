"""Starting, asking and following jobs, from the app and from the shell."""

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dreamspace
from dreamspace.jobs.control import clear_control, request
from dreamspace.jobs.events import EVENTS_FILE, Event, next_seq, read_events
from dreamspace.jobs.job import (
    ENDED_FILE,
    JOB_FILE,
    PROCESS_FILE,
    START_TIMEOUT_SECONDS,
    Job,
    ProcessRecord,
    is_live,
)
from dreamspace.jobs.log import LOG_FILE, log_tail
from dreamspace.jobs.secrecy import child_environment, refuse_tokens
from dreamspace.jobs.workspace import job_status

_FOLLOW_SECONDS = 0.25
_LEAVE_SECONDS = 15.0


def submit(
    job_dir: Path,
    kind: str,
    arguments: dict[str, Any],
    *,
    needs_gpu: bool = True,
    num_processes: int = 1,
    deadline_seconds: float | None = None,
    grace_seconds: float = 60.0,
    secrets: Mapping[str, str] | None = None,
    supervisor_module: str = "dreamspace.jobs.supervisor",
) -> None:
    """Start a job, or start an ended one again; returns once its supervisor has taken it over.

    The supervisor is a process of its own, which lives on when this one ends. The job runs in this
    process's working folder.

    Args:
        job_dir: made if missing. What an earlier attempt left stays, except its end and its requests.
        kind: a key of `dreamspace.worker.KINDS`.
        arguments: anything that JSON knows; written to disk.
        needs_gpu: whether it waits until no other job runs on this machine.
        num_processes: ranks, one for each GPU.
        deadline_seconds: from the start of the worker on; then it is asked to stop.
        grace_seconds: from the request to stop until SIGTERM.
        secrets: environment variables for this job only, such as `HF_TOKEN`; never written to disk.
        supervisor_module: run with the job folder as its only argument.

    Raises:
        ValueError: if the job is still waiting or running, the arguments hold a token, the job folder or
            the machine's lock cannot be used, or the machine starts no more processes.
        RuntimeError: if the supervisor breaks down or hangs before it has taken the job over.
    """
    job_dir = Path(job_dir).resolve()
    secrets = dict(secrets or {})
    serialised = json.dumps(arguments, ensure_ascii=False)
    refuse_tokens(serialised, f"The settings of {job_dir.name}", tuple(secrets.values()))
    with _submission(job_dir):
        _refuse_live(job_dir)
        now = round(time.time(), 3)
        job = Job(
            kind=kind,
            arguments=arguments,
            created=Job.read(job_dir).created if (job_dir / JOB_FILE).exists() else now,
            submitted=now,
            first_seq=next_seq(job_dir / EVENTS_FILE),
            needs_gpu=needs_gpu,
            num_processes=num_processes,
            deadline_seconds=deadline_seconds,
            grace_seconds=grace_seconds,
        )
        with _writing(job_dir):
            clear_control(job_dir)
            for name in (PROCESS_FILE, ENDED_FILE):
                (job_dir / name).unlink(missing_ok=True)
            job.write(job_dir)
        _start_supervisor(job_dir, supervisor_module, child_environment(os.environ, secrets))


def stop(job_dir: Path) -> None:
    """Ask the job to save and leave; one that does not is made to after its grace."""
    request(job_dir, "stop")


def follow(job_dir: Path) -> Iterator[Event]:
    """Yield the job's events, those of earlier attempts first, until it has ended and all are out."""
    path = Path(job_dir) / EVENTS_FILE
    offset = 0
    while True:
        live = is_live(job_dir)  # Before reading: what it wrote while it lived is then read for certain.
        events, offset = read_events(path, offset)
        yield from events
        if not live:
            return
        time.sleep(_FOLLOW_SECONDS)


@contextmanager
def _submission(job_dir: Path) -> Iterator[None]:
    """One submission of a job at a time, in a folder that can be written: two clicks start it once."""
    with _writing(job_dir):
        job_dir.mkdir(parents=True, exist_ok=True)
        file = os.open(job_dir / ".submission.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


@contextmanager
def _writing(job_dir: Path) -> Iterator[None]:
    """Around what writes into the job folder, and nothing else: says so if it cannot be written."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"The folder {job_dir} cannot be written: {error.strerror}. Choose another, or free some space."
        ) from error


def _refuse_live(job_dir: Path) -> None:
    """Raise ValueError for a live job; one that has said its last word is given a moment to leave."""
    give_up_at = time.monotonic() + _LEAVE_SECONDS
    while is_live(job_dir):
        if not job_status(job_dir).is_final or time.monotonic() > give_up_at:
            raise ValueError(
                f"The job {job_dir.name} is still waiting or running. Stop it, or wait until it has ended."
            )
        time.sleep(0.05)


def _start_supervisor(job_dir: Path, module: str, environment: dict[str, str]) -> None:
    package_parent = str(Path(dreamspace.__file__).resolve().parent.parent)
    search_path = [package_parent, environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, search_path))
    with _writing(job_dir), open(job_dir / LOG_FILE, "ab") as log:
        try:
            supervisor = subprocess.Popen(
                [sys.executable, "-m", module, str(job_dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise ValueError(
                f"No process can be started for {job_dir.name}: {error.strerror}. "
                "Close other programs, then start it again."
            ) from error
    # Reaps this one child when it ends, so that it does not stay a zombie for as long as the app lives.
    threading.Thread(target=supervisor.wait, daemon=True).start()
    give_up_at = time.monotonic() + START_TIMEOUT_SECONDS
    while ProcessRecord.read(job_dir) is None:
        if supervisor.returncode == 2:
            raise ValueError(log_tail(job_dir).rstrip().rpartition("\n")[2])
        if supervisor.returncode is not None or time.monotonic() > give_up_at:
            supervisor.kill()  # One that only hangs would else begin the job later, unasked.
            supervisor.wait()
            raise RuntimeError(f"The supervisor of {job_dir.name} did not start:\n{log_tail(job_dir)}")
        time.sleep(0.02)
