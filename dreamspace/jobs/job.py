"""A job's files beside its events: `job.json` before it, `process.json` while it runs, `ended.json` after."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dreamspace.files import read_json, write_json
from dreamspace.jobs.process import ProcessIdentity, is_alive
from dreamspace.suggest import nearest

JOB_FILE = "job.json"
PROCESS_FILE = "process.json"
ENDED_FILE = "ended.json"

# How long a submitted job may be without a process before it counts as never started.
START_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Job:
    """What is to be done, and within which bounds.

    `created` is when the job was first submitted (Unix seconds); `first_seq` is the `seq` of this attempt's
    first event, so that the final event of an earlier attempt is not taken for this one's.
    """

    kind: str
    arguments: dict[str, Any] = field(default_factory=dict)
    created: float = 0.0
    submitted: float = 0.0
    first_seq: int = 0
    needs_gpu: bool = True
    num_processes: int = 1
    deadline_seconds: float | None = None
    grace_seconds: float = 60.0

    @classmethod
    def read(cls, job_dir: Path) -> Job:
        """Raises ValueError if `job.json` is missing, broken, or has a key that a job does not have."""
        path = Path(job_dir) / JOB_FILE
        values = read_json(path)
        names = [a_field.name for a_field in dataclasses.fields(cls)]
        if not isinstance(values, dict) or "kind" not in values:
            raise ValueError(f"{path} does not describe a job: it needs an object with a 'kind'.")
        for key in values:
            if key not in names:
                raise ValueError(f"{path} has an unknown key '{key}'.{nearest(key, names)}")
        return cls(**values)

    def write(self, job_dir: Path) -> None:
        """Write `job.json`."""
        write_json(Path(job_dir) / JOB_FILE, dataclasses.asdict(self))


@dataclass(frozen=True)
class ProcessRecord:
    """Who works on a job: its supervisor; its worker, once started; the jobs it waits for until then."""

    supervisor: ProcessIdentity
    worker: ProcessIdentity | None = None
    waits_for: tuple[str, ...] = ()

    @classmethod
    def read(cls, job_dir: Path) -> ProcessRecord | None:
        """The record, or None if no supervisor has written one."""
        values = _read_if_there(Path(job_dir) / PROCESS_FILE)
        if values is None:
            return None
        worker = values["worker"]
        return cls(
            supervisor=ProcessIdentity(**values["supervisor"]),
            worker=None if worker is None else ProcessIdentity(**worker),
            waits_for=tuple(values["waits_for"]),
        )

    def write(self, job_dir: Path) -> None:
        """Write `process.json`."""
        write_json(Path(job_dir) / PROCESS_FILE, dataclasses.asdict(self))

    def is_alive(self) -> bool:
        """Whether the supervisor or the worker lives."""
        return is_alive(self.supervisor) or (self.worker is not None and is_alive(self.worker))


@dataclass(frozen=True)
class Ended:
    """How the worker ended, once its last process is gone.

    `signal` is the signal's number, `time` is Unix seconds. A job that was stopped in the queue has neither
    exit status nor signal.
    """

    exit_status: int | None
    signal: int | None
    time: float
    reason: Literal["exited", "stopped", "deadline"]

    @classmethod
    def read(cls, job_dir: Path) -> Ended | None:
        """The end, or None if the supervisor has not written it."""
        values = _read_if_there(Path(job_dir) / ENDED_FILE)
        return None if values is None else cls(**values)

    def write(self, job_dir: Path) -> None:
        """Write `ended.json`."""
        write_json(Path(job_dir) / ENDED_FILE, dataclasses.asdict(self))


def is_live(job_dir: Path) -> bool:
    """Whether the job waits or runs: a process of it lives, and it has not ended."""
    record = ProcessRecord.read(job_dir)
    return record is not None and record.is_alive() and not (Path(job_dir) / ENDED_FILE).exists()


def _read_if_there(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:  # Asking first whether it exists would race with a restart, which removes it.
        return None
