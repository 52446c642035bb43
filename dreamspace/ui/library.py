"""What the workspace holds for the page: runs, drafts, and jobs."""

import math
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dreamspace.config import DatasetConfig, RunConfig, parse_dataset, subject_dataset, subject_prompt
from dreamspace.files import read_json
from dreamspace.jobs.events import EVENTS_FILE
from dreamspace.jobs.job import ENDED_FILE, JOB_FILE, PROCESS_FILE, Job
from dreamspace.jobs.workspace import JobStatus, Workspace, job_status
from dreamspace.run_folder import AVERAGED, step_of, weights_file
from dreamspace.ui.subject import Subject

CONFIG_FILE = "config.json"
DATASETS_FILE = "multidatabackend.json"


@dataclass(frozen=True)
class Run:
    """A training run as its files tell it."""

    dir: Path
    config: RunConfig
    datasets: tuple[DatasetConfig, ...]
    status: JobStatus
    created: float

    @classmethod
    def read(cls, run_dir: Path) -> "Run":
        """Raises ValueError if the folder holds no run."""
        config, datasets = _run_settings(run_dir, *_stamp(run_dir, CONFIG_FILE, DATASETS_FILE))
        created = _job(run_dir, *_stamp(run_dir, JOB_FILE)).created
        return cls(run_dir, config, datasets, current_status(run_dir), created)

    @property
    def title(self) -> str:
        """The words for the subject, such as "sks dog"."""
        return " ".join(filter(None, (self.config.token, self.config.class_word))) or self.dir.name

    @property
    def has_adapter(self) -> bool:
        """Whether the final adapter was saved."""
        return weights_file(self.dir / "adapter") is not None

    @property
    def has_averaged_adapter(self) -> bool:
        """Whether the moving average of its weights was saved beside the final adapter."""
        return weights_file(self.dir / AVERAGED) is not None

    @property
    def prompt(self) -> str:
        """The prompt that calls the subject, such as "a photo of a sks dog"."""
        return subject_prompt(self.config, list(self.datasets))

    @property
    def resolution(self) -> int:
        """The edge of the square pictures that it trains on, or that are as large as these, in px."""
        return edge_px(subject_dataset(list(self.datasets)))

    @property
    def photos_dir(self) -> Path:
        """The folder of the subject's photos."""
        return subject_dataset(list(self.datasets)).instance_data_dir

    def subject_dir(self, workspace: Workspace) -> Path | None:
        """The subject in the workspace whose photos the run learns from; None if they lie elsewhere."""
        photos_dir = self.photos_dir
        if photos_dir.name != "photos" or photos_dir.parent.parent != workspace.subjects:
            return None
        return photos_dir.parent if photos_dir.is_dir() else None


def edge_px(dataset: DatasetConfig) -> int:
    """The edge of the square pictures that a dataset is trained at, or that are as large as these, in px."""
    is_area = dataset.resolution_type == "area"
    return round(math.sqrt(dataset.resolution * 1e6) / 64) * 64 if is_area else round(dataset.resolution)


# These are kept without a bound: a page asks for all of them at each tick.
@cache
def _run_settings(run_dir: Path, *stamp: int) -> tuple[RunConfig, tuple[DatasetConfig, ...]]:
    """The two settings files; `stamp` is their age, so that a changed file is read again."""
    # Not `load_datasets`: a run whose photos were moved away is still worth looking at.
    datasets = [parse_dataset(entry, source=DATASETS_FILE) for entry in read_json(run_dir / DATASETS_FILE)]
    subject_dataset(datasets, source=DATASETS_FILE)
    return RunConfig.load(run_dir / CONFIG_FILE), tuple(datasets)


def current_status(job_dir: Path) -> JobStatus:
    """How a job stands; that of an ended one is remembered until its files change."""
    stamp = _stamp(job_dir, JOB_FILE, PROCESS_FILE, ENDED_FILE, EVENTS_FILE)
    return _ended_status(job_dir, stamp) if (job_dir / ENDED_FILE).exists() else job_status(job_dir)


@cache
def _ended_status(job_dir: Path, stamp: tuple[int, ...]) -> JobStatus:
    return job_status(job_dir)


def _stamp(folder: Path, *names: str) -> tuple[int, ...]:
    """Size and time of files, by which a change shows; -1 for a file that is not there."""
    values = []
    for name in names:
        try:
            stat = (folder / name).stat()
            values += [stat.st_mtime_ns, stat.st_size]
        except FileNotFoundError:
            values.append(-1)
    return tuple(values)


def list_all_runs(workspace: Workspace) -> list[Run]:
    """All runs that can be read, the most recently started first."""
    runs = []
    for run_dir in workspace.list_runs():
        # A run that is just being written, or was written by hand with a mistake, is no reason to show none.
        if (run_dir / CONFIG_FILE).exists() and (run_dir / JOB_FILE).exists():
            try:
                runs.append(Run.read(run_dir))
            except ValueError:
                continue
    return runs


def list_drafts(workspace: Workspace, runs: Iterable[Run]) -> list[Subject]:
    """Subjects with photos that no run has learned from yet."""
    used = {run.subject_dir(workspace) for run in runs}
    subjects = [Subject.read(folder) for folder in workspace.list_subjects() if folder not in used]
    return [subject for subject in subjects if subject.photos]


def is_learned_from(workspace: Workspace, subject_dir: Path) -> bool:
    """Whether a run depends on the subject, which must not change then."""
    return any(run.subject_dir(workspace) == subject_dir for run in list_all_runs(workspace))


def jobs_by_kind(workspace: Workspace) -> dict[str, list[Path]]:
    """The folders of all jobs but the runs, by kind, the most recently started first."""
    found: dict[str, list[Path]] = {}
    for job_dir in workspace.list_jobs():
        if (job_dir / JOB_FILE).exists():
            job = _job(job_dir, *_stamp(job_dir, JOB_FILE))
            found.setdefault(job.kind, []).append(job_dir)
    return found


def jobs_on(workspace: Workspace, *folders: Path) -> list[Path]:
    """The folders of the jobs that work on a run, or on the photos of a subject."""
    wanted = {str(folder) for folder in folders}
    return [
        job_dir
        for job_dirs in jobs_by_kind(workspace).values()
        for job_dir in job_dirs
        if wanted.intersection(map(str, job_arguments(job_dir).values()))
    ]


@cache
def _job(job_dir: Path, *stamp: int) -> Job:
    return Job.read(job_dir)


def delete_run(workspace: Workspace, run_id: str) -> None:
    """Delete a run with its jobs, and with its photos if no other run learns from them.

    Raises:
        ValueError: for an unknown run, or one that is not over.
    """
    run_dir = workspace.run_dir(run_id)
    jobs = jobs_on(workspace, run_dir)
    _refuse_at_work(run_dir, *jobs)
    subject_dir = Run.read(run_dir).subject_dir(workspace)
    for job_dir in (*jobs, run_dir):
        _remove(job_dir)
    if subject_dir is not None and not is_learned_from(workspace, subject_dir):
        delete_draft(workspace, subject_dir.name)


def delete_draft(workspace: Workspace, subject_id: str) -> None:
    """Delete a subject that no run learns from, with the jobs on its photos.

    Raises:
        ValueError: for an unknown subject, one that a run learns from, or one that is being masked.
    """
    subject_dir = workspace.subject_dir(subject_id)
    if is_learned_from(workspace, subject_dir):
        raise ValueError("A run learns from these photos. Delete the run, and they go with it.")
    jobs = jobs_on(workspace, Subject(subject_dir).photos_dir)
    _refuse_at_work(*jobs)
    for folder in (*jobs, subject_dir):
        _remove(folder)


def _refuse_at_work(*job_dirs: Path) -> None:
    for job_dir in job_dirs:
        if not current_status(job_dir).is_final:
            raise ValueError(f"The job {job_dir.name} is still at work here. Stop it first, then delete it.")


def _remove(folder: Path) -> None:
    """Remove a folder: first from the lists (names with a leading dot are no ids), then from the disk."""
    doomed = folder.with_name(f".deleted-{folder.name}")
    os.replace(folder, doomed)
    shutil.rmtree(doomed)


def adapter_steps(run: Run) -> list[int]:
    """The steps whose checkpoint holds an adapter."""
    folders = sorted((run.dir / "checkpoints").glob("step-*"))
    return [step_of(folder) for folder in folders if weights_file(folder) is not None]


def job_arguments(job_dir: Path) -> dict[str, Any]:
    """The arguments with which a job was submitted last."""
    return _job(job_dir, *_stamp(job_dir, JOB_FILE)).arguments
