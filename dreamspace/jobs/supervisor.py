"""The supervisor of one job: `python -m dreamspace.jobs.supervisor JOB_DIR`, in a session of its own.

It waits for the GPU, starts the worker, passes its output on to the log, stops it when asked (politely, then
not), and writes `ended.json` when the last process of the job is gone. It outlives the app.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path

from dreamspace.jobs.control import is_stopping, request
from dreamspace.jobs.events import EVENTS_FILE, FINAL_KINDS, EventWriter, read_last_events
from dreamspace.jobs.job import Ended, Job, ProcessRecord, is_live
from dreamspace.jobs.lock import WORKERS_LOCK_VARIABLE, GpuLock
from dreamspace.jobs.log import LOG_FILE, RedactedLog
from dreamspace.jobs.process import (
    SUPERVISOR_VARIABLE,
    ProcessIdentity,
    adopt_orphans,
    kill_descendants,
    lead_group_and_die_with_parent,
    signal_descendants,
)
from dreamspace.jobs.secrecy import child_environment, handed_secrets

_POLL_SECONDS = 0.2
_CHUNK_BYTES = 65_536


def supervise(job_dir: Path, worker_module: str, kill_grace_seconds: float) -> Ended:
    """Run the job of `job_dir` from its place in the queue to its end.

    Args:
        job_dir: holds `job.json`.
        worker_module: run with the job folder as its only argument.
        kill_grace_seconds: between SIGTERM and SIGKILL.

    Raises:
        ValueError: if `job.json` is unfit, or another supervisor already works on the job.
    """
    job_dir = Path(job_dir).resolve()
    job = Job.read(job_dir)
    if is_live(job_dir):
        raise ValueError(f"The job {job_dir.name} is already running. Stop it first.")
    if Ended.read(job_dir) is not None:
        raise ValueError(f"The job {job_dir.name} has ended. Submit it again to go on with it.")
    adopt_orphans()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: request(job_dir, "stop"))
    record = ProcessRecord(supervisor=ProcessIdentity.of(os.getpid()))
    with GpuLock(job_dir) if job.needs_gpu else nullcontext() as lock:
        record.write(job_dir)  # From here on the launcher counts the job as started.
        if lock is not None and not _wait_for_turn(job_dir, lock, record):
            ended = Ended(exit_status=None, signal=None, time=time.time(), reason="stopped")
            _write_stopped_event(job_dir, job)
        else:
            run = _WorkerRun(job_dir, job, worker_module, kill_grace_seconds, record, lock)
            ended = run.to_its_end()
    ended.write(job_dir)
    return ended


def worker_command(job_dir: Path, num_processes: int, worker_module: str) -> list[str]:
    """The command of a job's worker; with several processes, `torchrun` starts a rank each.

    `accelerate launch` on a CPU quietly starts one process where two were asked for; under `torchrun`
    accelerate finds its ranks on GPUs and CPUs alike.
    """
    worker = ["-m", worker_module, str(job_dir)]
    if num_processes == 1:
        return [sys.executable, *worker]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    return [sys.executable, *launcher, *worker]


class _WorkerRun:
    """One worker, from its start to the death of its last process."""

    def __init__(
        self,
        job_dir: Path,
        job: Job,
        worker_module: str,
        kill_grace_seconds: float,
        record: ProcessRecord,
        lock: GpuLock | None,
    ) -> None:
        self._job_dir = job_dir
        self._job = job
        self._kill_grace_seconds = kill_grace_seconds
        self._reason = "exited"
        self._terminate_at: float | None = None
        self._kill_at: float | None = None
        self._log = RedactedLog(job_dir / LOG_FILE, tuple(handed_secrets(os.environ).values()))
        self._worker = subprocess.Popen(
            worker_command(job_dir, job.num_processes, worker_module),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_worker_environment(record, lock),
            # This process has one thread, which is what makes a preexec_fn safe.
            preexec_fn=lead_group_and_die_with_parent,
        )
        self._started = time.monotonic()
        replace(record, worker=ProcessIdentity.of(self._worker.pid), waits_for=()).write(job_dir)

    def to_its_end(self) -> Ended:
        """Watch over the worker; returns once no process of it is left."""
        try:
            while self._worker.poll() is None:
                self._pass_output_on(_POLL_SECONDS)
                self._stop_if_due(time.monotonic())
        finally:
            kill_descendants()
            while self._pass_output_on(0.0):
                pass
            self._log.close()
        if self._kill_at is not None:
            _write_stopped_event(self._job_dir, self._job)
        status = self._worker.returncode
        return Ended(
            exit_status=status if status >= 0 else None,
            signal=-status if status < 0 else None,
            time=time.time(),
            reason=self._reason,
        )

    def _pass_output_on(self, timeout_seconds: float) -> bool:
        """Whether there was output within the timeout."""
        stdout = self._worker.stdout
        if stdout.closed:
            with suppress(subprocess.TimeoutExpired):  # It has most likely just ended.
                self._worker.wait(timeout_seconds)
            return False
        if not select.select([stdout], [], [], timeout_seconds)[0]:
            return False
        output = os.read(stdout.fileno(), _CHUNK_BYTES)
        if output:
            self._log.feed(output)
        else:
            stdout.close()
        return bool(output)

    def _stop_if_due(self, now: float) -> None:
        """Ask, then SIGTERM, then SIGKILL, each after its grace."""
        if self._terminate_at is None:
            deadline_seconds = self._job.deadline_seconds
            if is_stopping(self._job_dir):
                self._reason = "stopped"
            elif deadline_seconds is not None and now - self._started >= deadline_seconds:
                self._reason = "deadline"
                request(self._job_dir, "stop")
            else:
                return
            self._terminate_at = now + self._job.grace_seconds
        elif self._kill_at is None:
            if now >= self._terminate_at:
                signal_descendants(signal.SIGTERM)
                self._kill_at = now + self._kill_grace_seconds
        elif now >= self._kill_at:
            signal_descendants(signal.SIGKILL)


def _worker_environment(record: ProcessRecord, lock: GpuLock | None) -> dict[str, str]:
    environment = child_environment(os.environ, handed_secrets(os.environ))
    environment["PYTHONUNBUFFERED"] = "1"
    environment[SUPERVISOR_VARIABLE] = json.dumps(asdict(record.supervisor))
    if lock is not None:
        environment[WORKERS_LOCK_VARIABLE] = str(lock.workers_path)
    return environment


def _wait_for_turn(job_dir: Path, lock: GpuLock, record: ProcessRecord) -> bool:
    """Wait in the queue, and say behind whom; False if the job was asked to stop before its turn."""
    events = None
    waits_for: tuple[str, ...] = ()
    try:
        while not lock.acquire():
            if is_stopping(job_dir):
                return False
            if lock.waits_for != waits_for:
                waits_for = lock.waits_for
                events = events or EventWriter(job_dir)
                events.write("stage", name="queued", message=f"Waiting for {', then '.join(waits_for)}.")
                replace(record, waits_for=waits_for).write(job_dir)
            time.sleep(_POLL_SECONDS)
    finally:
        if events is not None:
            events.close()
    return not is_stopping(job_dir)


def _write_stopped_event(job_dir: Path, job: Job) -> None:
    """Say `stopped` for a worker that could not, unless it has said its last word already."""
    events = read_last_events(job_dir / EVENTS_FILE)
    if any(event["kind"] in FINAL_KINDS and event["seq"] >= job.first_seq for event in events):
        return
    steps = [event["step"] for event in events if event.get("step") is not None]
    writer = EventWriter(job_dir)
    writer.write("stopped", step=steps[-1] if steps else 0, path=None)
    writer.close()


def main(
    arguments: Sequence[str], worker_module: str = "dreamspace.worker", kill_grace_seconds: float = 10.0
) -> int:
    """Supervise the job of the folder named in `arguments`; returns the exit status.

    2 and one line on standard error for what the user can mend; how the job itself ended is in `ended.json`.
    """
    if len(arguments) != 1:
        print("usage: python -m dreamspace.jobs.supervisor JOB_DIR", file=sys.stderr)
        return 2
    try:
        supervise(Path(arguments[0]), worker_module, kill_grace_seconds)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
