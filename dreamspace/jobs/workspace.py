"""The workspace: where subjects, runs and jobs lie, how they are found, and how they stand."""

from __future__ import annotations

import os
import re
import secrets
import signal
import time
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dreamspace.jobs.control import is_stopping
from dreamspace.jobs.events import (
    EVENTS_FILE,
    FINAL_KINDS,
    MENDABLE_ERRORS,
    Event,
    read_last_event,
    read_last_events,
)
from dreamspace.jobs.job import JOB_FILE, START_TIMEOUT_SECONDS, Ended, Job, ProcessRecord
from dreamspace.suggest import nearest

HOME_VARIABLE = "DREAMSPACE_HOME"

Status = Literal["queued", "running", "stopping", "stopped", "done", "failed", "crashed"]

_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,78}[A-Za-z0-9])?")
_MAX_SLUG_LENGTH = 40


class Workspace:
    """The folders of all subjects, runs and jobs under one root, made when they are missing.

    Args:
        root: the workspace; None takes `DREAMSPACE_HOME`, else `./workspace`.

    Raises:
        ValueError: if the folders cannot be made.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = Path(root or os.environ.get(HOME_VARIABLE) or "workspace").resolve()
        self.subjects = self.root / "subjects"
        self.priors = self.root / "priors"
        self.jobs = self.root / "jobs"
        self.runs = self.root / "runs"
        self.cache = self.root / "cache"
        try:
            for folder in (self.subjects, self.priors, self.jobs, self.runs, self.cache):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"The workspace {self.root} cannot be used: {error.strerror}. "
                f"Set {HOME_VARIABLE} to a folder that you may write to."
            ) from None

    def list_runs(self) -> list[Path]:
        """The folders of all runs, the most recently started first."""
        return _newest_first(self.runs)

    def list_jobs(self) -> list[Path]:
        """The folders of all jobs that are not runs, the most recently started first."""
        return _newest_first(self.jobs)

    def list_subjects(self) -> list[Path]:
        """The folders of all subjects, the most recently changed first."""
        return _newest_first(self.subjects)

    def new_run_dir(self, name: str) -> Path:
        """Make and return a new, empty run folder, named after `name` and unlike any other."""
        return _new_folder(self.runs, name, "run")

    def new_job_dir(self, name: str) -> Path:
        """Make and return a new, empty job folder, named after `name` and unlike any other."""
        return _new_folder(self.jobs, name, "job")

    def new_subject_dir(self, name: str) -> Path:
        """Make and return a new, empty subject folder, named after `name` and unlike any other."""
        return _new_folder(self.subjects, name, "subject")

    def run_dir(self, run_id: str) -> Path:
        """The folder of an existing run; ValueError for an id that is malformed or unknown."""
        return _existing_folder(self.runs, run_id, "run")

    def job_dir(self, job_id: str) -> Path:
        """The folder of an existing job; ValueError for an id that is malformed or unknown."""
        return _existing_folder(self.jobs, job_id, "job")

    def subject_dir(self, subject_id: str) -> Path:
        """The folder of an existing subject; ValueError for an id that is malformed or unknown."""
        return _existing_folder(self.subjects, subject_id, "subject")


@dataclass(frozen=True)
class JobStatus:
    """How a job stands.

    Attributes:
        status: one of `Status`.
        stage: name of the last stage that this attempt announced, "" before the first.
        step: the last step that it mentioned, 0 before the first.
        num_steps: of its last progress, None before the first.
        message: one sentence for people: what it does, waits for, or how it ended.
        hint: what to do about a failure, or "".
        error: the `error` of a failed job's event, else "".
        waits_for: names of the jobs before it in the queue, the running one first.
    """

    status: Status
    stage: str = ""
    step: int = 0
    num_steps: int | None = None
    message: str = ""
    hint: str = ""
    error: str = ""
    waits_for: tuple[str, ...] = ()

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens unless it is submitted again."""
        return self.status in ("stopped", "done", "failed", "crashed")

    @property
    def exit_status(self) -> int:
        """The exit status of a command that followed this job: 0, 2 for what the user can mend, 1."""
        if self.status in ("done", "stopped"):
            return 0
        return 2 if self.error in MENDABLE_ERRORS else 1


def job_status(job_dir: Path) -> JobStatus:
    """How the job stands, from its files and its process alone; parses only the end of a long event log.

    Raises:
        ValueError: if the folder holds no job.
    """
    job = Job.read(job_dir)
    # The process first: what it wrote before it died is then read for certain.
    record = ProcessRecord.read(job_dir)
    alive = record is not None and record.is_alive()
    ended = Ended.read(job_dir)
    path = Path(job_dir) / EVENTS_FILE
    last_events = read_last_events(path)
    stage = read_last_event(path, "stage")
    if stage is not None and stage["seq"] < job.first_seq:
        stage = None
    progress = read_last_event(path, "progress")
    steps = [e["step"] for e in [progress, *last_events] if e is not None and e.get("step") is not None]
    step = steps[-1] if steps else 0
    seen = {
        "stage": stage["name"] if stage else "",
        "step": step,
        "num_steps": progress["num_steps"] if progress else None,
    }
    this_attempt = [e for e in last_events if e["seq"] >= job.first_seq]
    final = next((e for e in reversed(this_attempt) if e["kind"] in FINAL_KINDS), None)
    if final is not None:
        return _final_status(final, seen, ended, job)
    if ended is None and alive:
        if is_stopping(job_dir):
            return JobStatus("stopping", **seen, message="Saving, then stopping.")
        if record.worker is None:
            waits_for = record.waits_for
            message = f"Waiting for {', then '.join(waits_for)}." if waits_for else "Starting."
            return JobStatus("queued", **seen, message=message, waits_for=waits_for)
        return JobStatus("running", **seen, message=(stage["message"] or "") if stage else "")
    if record is None and ended is None and time.time() - job.submitted < START_TIMEOUT_SECONDS:
        return JobStatus("queued", **seen, message="Starting.")
    return JobStatus("crashed", **seen, message=_crash_message(ended, step), hint=_CRASH_HINT)


_CRASH_HINT = "Resume it: it goes on from its last checkpoint. The end of its log says what happened last."


def _final_status(final: Event, seen: dict, ended: Ended | None, job: Job) -> JobStatus:
    if final["kind"] == "failed":
        return JobStatus(
            "failed",
            **seen,
            message=final["message"] or final["error"] or "It failed.",
            hint=final["hint"] or "",
            error=final["error"] or "",
        )
    if final["kind"] == "done":
        return JobStatus("done", **seen, message="Done.")
    if ended is not None and ended.reason == "deadline":
        limit = f"{job.deadline_seconds:g} seconds"
        message = f"Stopped at step {seen['step']}: its deadline of {limit} was over."
        return JobStatus("stopped", **seen, message=message)
    return JobStatus("stopped", **seen, message=f"Stopped at step {seen['step']}.")


def _crash_message(ended: Ended | None, step: int) -> str:
    if ended is None:
        how = "its supervisor was killed, or the machine restarted"
    elif ended.signal == signal.SIGKILL:
        how = "it was killed (SIGKILL); often the machine was out of memory"
    elif ended.signal is not None:
        how = f"it was ended by {signal.Signals(ended.signal).name}"
    else:
        how = f"it left with exit status {ended.exit_status}"
    return f"The process died at step {step} without a word: {how}."


def _newest_first(folder: Path) -> list[Path]:
    def started(path: Path) -> float:
        job_file = path / JOB_FILE
        return (job_file if job_file.exists() else path).stat().st_mtime

    folders = [path for path in sorted(folder.iterdir()) if path.is_dir() and _ID.fullmatch(path.name)]
    return sorted(folders, key=started, reverse=True)


def _new_folder(parent: Path, name: str, fallback: str) -> Path:
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_name)[:_MAX_SLUG_LENGTH].strip("-") or fallback
    while True:
        folder = parent / f"{slug}-{secrets.token_hex(3)}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder


def _existing_folder(parent: Path, folder_id: str, what: str) -> Path:
    folder = parent / folder_id
    # A link could lead out of the workspace, so what counts is where it leads.
    if not _ID.fullmatch(folder_id) or folder.resolve().parent != parent:
        raise ValueError(f"{folder_id!r} is not the name of a {what}. Choose from the list.")
    if not folder.is_dir():
        known = [path.name for path in _newest_first(parent)]
        raise ValueError(
            f"There is no {what} '{folder_id}'.{nearest(folder_id, known)} Choose from the list."
        )
    return folder


def cache_of(job_dir: Path) -> Path:
    """The cache folder of the workspace that a job lies in, else of the default workspace."""
    if job_dir.parent.name in ("runs", "jobs") and (job_dir.parent.parent / "cache").is_dir():
        return job_dir.parent.parent / "cache"
    return Workspace().cache
