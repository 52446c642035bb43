"""What one look at the page shows: where the visitor is, and what the workspace says about it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dreamspace.data.geometry import two_digits
from dreamspace.evaluation.plots import Outcome
from dreamspace.files import read_json
from dreamspace.jobs.workspace import JobStatus, Workspace
from dreamspace.run_folder import EVALUATION_FILE
from dreamspace.ui.history import Histories, History
from dreamspace.ui.library import (
    adapter_steps,
    current_status,
    job_arguments,
    jobs_by_kind,
    list_all_runs,
    list_drafts,
)
from dreamspace.ui.media import event_picture_url, picture_url
from dreamspace.ui.subject import Subject

STEPS = ("photos", "masks", "prior", "words", "settings", "train", "result", "publish")

# Every value that a template prints is escaped, unless it is Markup of ours.
_TEMPLATES = Environment(
    loader=PackageLoader("dreamspace.ui"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> Markup:
    """The HTML of a template in `templates/`."""
    return Markup(_TEMPLATES.get_template(template).render(values))


def duration(seconds: float) -> str:
    """A span of time in words, such as "40 s", "3 min" or "1 h 20 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 2880 else f"{round(minutes / 1440)} days"


def size(num_bytes: float) -> str:
    """A size on the disk or in memory, such as "850 kB", "3.2 MB" or "24 GB"."""
    for unit in ("kB", "MB"):
        num_bytes /= 1000
        if num_bytes < 999.5:
            return f"{two_digits(num_bytes)} {unit}"
    return f"{two_digits(num_bytes / 1000)} GB"


def money(dollars: float) -> str:
    """A price, such as "$0.04" or "$12"."""
    return "under $0.01" if dollars < 0.005 else f"${dollars:.2f}" if dollars < 10 else f"${dollars:.0f}"


def thumbnail_url(photo: Path, width_px: int = 320) -> str:
    """The address of a small copy of a subject's photo."""
    return picture_url(photo.parents[1], f"photos/{photo.name}", width_px=width_px)


_TEMPLATES.filters |= {
    "duration": duration,
    "size": size,
    "digits": two_digits,
    "money": money,
    "thumbnail_url": thumbnail_url,
}
_TEMPLATES.globals |= {"event_picture_url": event_picture_url}


@dataclass(frozen=True)
class View:
    """Where a visitor is: the query of the page's address, as in `?run=sks-dog-1a2b3c&step=train`.

    Attributes:
        preset: that was chosen for the next training; "" takes the run's settings, else the usual preset.
        model: a model that was chosen in its place, by family and flavour: "sdxl/base-1.0".
        resolution: edge of the training pictures in px; None takes the preset's, model's or run's.
    """

    run_id: str = ""
    subject_id: str = ""
    step: str = "photos"
    checkpoint: int | None = None
    preset: str = ""
    model: str = ""
    resolution: int | None = None

    @classmethod
    def parse(cls, address: str) -> "View":
        """The view of an address; what it cannot say is left at its default."""
        query = {name: values[-1] for name, values in parse_qs(address.lstrip("?")).items()}
        step = query.get("step", "")
        return cls(
            run_id=query.get("run", ""),
            subject_id=query.get("subject", ""),
            step=step if step in STEPS else "photos",
            checkpoint=_number(query.get("checkpoint", "")),
            preset=query.get("preset", ""),
            model=query.get("model", ""),
            resolution=_number(query.get("resolution", "")),
        )

    @property
    def address(self) -> str:
        """The query that `parse` takes."""
        names = {
            "run": self.run_id,
            "subject": self.subject_id,
            "step": self.step,
            "checkpoint": self.checkpoint,
            "preset": self.preset,
            "model": self.model,
            "resolution": self.resolution,
        }
        return urlencode({name: value for name, value in names.items() if value})

    def of_subject(self, subject_id: str) -> "View":
        """The same place with other photos, which no run has learned from; what was chosen stays chosen."""
        return replace(self, run_id="", subject_id=subject_id, checkpoint=None)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 10 else None


class Page:
    """The workspace as one visitor sees it at one moment; read once, used by every panel.

    Attributes:
        view: where the visitor is, without runs and subjects that are gone.
        missing: a sentence about what the address named and is not there, or "".
    """

    def __init__(self, workspace: Workspace, histories: Histories, view: View) -> None:
        self.workspace = workspace
        self._histories = histories
        self.runs = list_all_runs(workspace)
        self.drafts = list_drafts(workspace, self.runs)
        self.missing = ""
        run = _found(workspace.run_dir, view.run_id)
        self.run = next((r for r in self.runs if r.dir == run), None)
        subject_dir = _found(workspace.subject_dir, view.subject_id)
        if self.run is not None and subject_dir is None:
            subject_dir = self.run.subject_dir(workspace)
        self.subject = None if subject_dir is None else Subject.read(subject_dir)
        if view.run_id and self.run is None:
            self.missing = f"There is no run '{view.run_id}' here any more."
        elif view.subject_id and self.subject is None:
            self.missing = "These photos are not here any more."
        self.view = replace(
            view,
            run_id=self.run.dir.name if self.run else "",
            subject_id=view.subject_id if self.subject else "",
        )
        if not self.reachable[self.view.step]:
            self.view = replace(self.view, step="train" if self.run else "photos")

    def at(self, subject: Subject) -> View:
        """The same step with this subject, which is a new one where a run learns from the former."""
        is_same = self.subject is not None and subject.dir == self.subject.dir
        return self.view if is_same else self.with_photos(subject.dir)

    def with_photos(self, subject_dir: Path) -> View:
        """The same step with other photos, while the fields stay as they are."""
        view = self.view.of_subject(subject_dir.name)
        is_of_run = self.run is not None and not view.preset
        return replace(view, resolution=view.resolution or self.run.resolution) if is_of_run else view

    def history(self, job_dir: Path) -> History:
        """The events of a job."""
        return self._histories.of(job_dir)

    def status(self, job_dir: Path) -> JobStatus:
        """How a job stands."""
        return current_status(job_dir)

    @cached_property
    def run_history(self) -> History:
        """The events of the run; empty without one."""
        return self.history(self.run.dir) if self.run else History()

    @cached_property
    def evaluation(self) -> Outcome | None:
        """What the run's checkpoints score, and which one is recommended; None before it was evaluated."""
        file = self.run.dir / EVALUATION_FILE if self.run else None
        return read_json(file) if file is not None and file.exists() else None

    @cached_property
    def evaluation_version(self) -> int:
        """Changes with the evaluation, which there is."""
        return (self.run.dir / EVALUATION_FILE).stat().st_mtime_ns

    @cached_property
    def saved_steps(self) -> list[int]:
        """The steps of the run whose adapter was saved in a checkpoint."""
        return adapter_steps(self.run) if self.run else []

    @cached_property
    def photos(self) -> list[Path]:
        """The subject's photos, oldest first."""
        return self.subject.photos if self.subject else []

    @cached_property
    def reachable(self) -> dict[str, bool]:
        """Which steps can be opened."""
        has_result = bool(self.run) and any(step > 0 for step in self.run_history.sampled_steps)
        return {
            "photos": True,
            "masks": bool(self.photos),
            "prior": bool(self.photos) or self.run is not None,
            "words": bool(self.photos) or self.run is not None,
            "settings": bool(self.photos) or self.run is not None,
            "train": self.run is not None,
            "result": has_result or bool(self.run and self.run.has_adapter),
            "publish": bool(self.run and self.run.has_adapter),
        }

    def jobs(self, kind: str) -> list[Path]:
        """The jobs of a kind that work on the run, newest first."""
        return self._jobs_with(kind, {"run_dir": str(self.run.dir)}) if self.run else []

    @property
    def mask_job(self) -> Path | None:
        """The newest job that masks the subject's photos."""
        return self.newest_job("mask", {"photos": str(self.subject.photos_dir)}) if self.subject else None

    def prior_job(self, folder: Path) -> Path | None:
        """The newest job that draws class images into a folder."""
        return self.newest_job("prior", {"out": str(folder)})

    def newest_job(self, kind: str, arguments: dict[str, str]) -> Path | None:
        """The newest job of a kind with these among its arguments."""
        return next(iter(self._jobs_with(kind, arguments)), None)

    def _jobs_with(self, kind: str, arguments: dict[str, str]) -> list[Path]:
        jobs = self.all_jobs.get(kind, [])
        return [job for job in jobs if arguments.items() <= _plain(job_arguments(job)).items()]

    @cached_property
    def all_jobs(self) -> dict[str, list[Path]]:
        """All jobs by kind, newest first."""
        return jobs_by_kind(self.workspace)


def _plain(arguments: dict[str, Any]) -> dict[str, str]:
    """The arguments that are words, such as folders."""
    return {name: value for name, value in arguments.items() if isinstance(value, str)}


def _found(find: Callable[[str], Path], name: str) -> Path | None:
    try:
        return find(name) if name else None
    except ValueError:
        return None
