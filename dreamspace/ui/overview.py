"""What is around the steps: the list of runs, the heading, and the way from step to step."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from markupsafe import Markup

from dreamspace.config import prior_of
from dreamspace.jobs.workspace import JobStatus
from dreamspace.ui.guide import Guide
from dreamspace.ui.library import Run, delete_draft, delete_run
from dreamspace.ui.media import event_picture_url
from dreamspace.ui.new_training import resume_run
from dreamspace.ui.page import STEPS, Page, View, render, thumbnail_url
from dreamspace.ui.subject import Subject

_LABELS = {
    "photos": "Photos",
    "masks": "Masks",
    "prior": "Prior",
    "words": "Words",
    "settings": "Model",
    "train": "Train",
    "result": "Result",
    "publish": "Publish",
}

# Writes the view into the browser's address, so that reloading it, or opening it elsewhere, comes back here;
# another step begins at its top.
_ADDRESS_SCRIPT = """
let step;
watch("value", () => {
  const nav = element.querySelector("[data-address]");
  if (!nav) return;
  history.replaceState(null, "", nav.dataset.address ? "?" + nav.dataset.address : location.pathname);
  if (step && step !== nav.dataset.step) window.scrollTo(0, 0);
  step = nav.dataset.step;
});
"""

# Brings the run that is opened into view: on a phone the list is a strip that shows two at a time.
_RUNS_SCRIPT = """
let open;
watch("value", () => {
  const card = element.querySelector(".ds-run.is-open");
  if (card && card.dataset.id !== open) card.scrollIntoView({ block: "nearest", inline: "nearest" });
  open = card?.dataset.id;
});
"""


@dataclass(frozen=True)
class Card:
    """An entry of the list: a run, or photos that wait for one."""

    id: str
    kind: str
    title: str
    note: str
    status: str
    status_word: str
    picture: str | None
    percent: int | None
    is_open: bool
    question: str

    @property
    def address(self) -> str:
        """Where its link leads."""
        return View(**{f"{self.kind}_id": self.id}).address


def build_side(guide: Guide) -> None:
    """The logo, the button for a new run, and the list of runs and drafts."""
    brand = guide.html(lambda page: render("brand.html"), events=("start_over",), elem_id="brand")
    cards = guide.html(
        lambda page: render("runs.html", cards=cards_of(page)),
        events=("open_entry", "resume_entry", "delete_entry"),
        script=_RUNS_SCRIPT,
        elem_id="runs",
    )
    guide.link(brand.start_over, lambda page, clicked: View(), fills_form=True)
    guide.link(cards.open_entry, _open, fills_form=True)
    guide.link(cards.resume_entry, _resume, fills_form=True)
    guide.link(cards.delete_entry, _delete, fills_form=True)


def build_heading(guide: Guide) -> None:
    """The steps as a row of buttons, and a word about what is not there."""
    steps = guide.html(_steps, events=("go",), script=_ADDRESS_SCRIPT, elem_id="steps")
    guide.lead(steps.go, "step")


def cards_of(page: Page) -> list[Card]:
    """The runs, the newest first, after the photos that no run has learned from."""
    drafts = [_draft_card(page, subject) for subject in page.drafts]
    return drafts + [_run_card(page, run) for run in page.runs]


def _draft_card(page: Page, subject: Subject) -> Card:
    photos = subject.photos
    words = (
        " ".join(filter(None, (subject.token, subject.class_word))) if subject.class_word else "New photos"
    )
    return Card(
        id=subject.dir.name,
        kind="subject",
        title=words,
        note=f"{len(photos)} photo{'s' * (len(photos) != 1)}",
        status="draft",
        status_word="not trained yet",
        picture=thumbnail_url(photos[0], 160),
        percent=None,
        is_open=page.view.subject_id == subject.dir.name and not page.run,
        question="Delete these photos?",
    )


def _run_card(page: Page, run: Run) -> Card:
    is_shared = sum(other.photos_dir == run.photos_dir for other in page.runs) > 1
    takes_photos = run.subject_dir(page.workspace) is not None and not is_shared
    started = datetime.fromtimestamp(run.created)
    lost = "its images, checkpoints and adapter" + (", and the photos it learned from" * takes_photos)
    return Card(
        id=run.dir.name,
        kind="run",
        title=run.title,
        note=f"{started.day} {started:%b, %H:%M}",
        status=run.status.status,
        status_word=_status_word(run.status),
        picture=_newest_picture(page, run),
        percent=percent(run.status) if run.status.status == "running" and run.status.step else None,
        is_open=bool(page.run) and page.run.dir == run.dir,
        question=f"Delete this run? With it go {lost}.",
    )


_STATUS_WORDS = {
    "queued": "waiting",
    "running": "training",
    "stopping": "stopping",
    "stopped": "stopped",
    "done": "done",
    "failed": "failed",
    "crashed": "crashed",
}


def _status_word(status: JobStatus) -> str:
    return "preparing" if status.status == "running" and not status.step else _STATUS_WORDS[status.status]


def percent(status: JobStatus) -> int:
    """How much of its steps a job has done, in percent."""
    return round(100 * status.step / status.num_steps) if status.num_steps else 0


def _newest_picture(page: Page, run: Run) -> str | None:
    history = page.history(run.dir)
    last = max(history.sampled_steps, default=0)
    if last > 0:
        event = next(event for shot in history.shots for event in history.shown(last, shot))
        return event_picture_url(run.dir, event, 160)
    subject_dir = run.subject_dir(page.workspace)
    photos = Subject.read(subject_dir).photos if subject_dir else []
    return thumbnail_url(photos[0], 160) if photos else None


def _steps(page: Page) -> Markup:
    entries = [
        {
            "name": name,
            "label": _LABELS[name],
            "note": _note(page, name),
            "is_current": page.view.step == name,
            "is_reachable": page.reachable[name],
            "is_done": _is_done(page, name),
        }
        for name in STEPS
    ]
    return render("steps.html", steps=entries, view=page.view, missing=page.missing)


def _is_done(page: Page, step: str) -> bool:
    run, subject = page.run, page.subject
    is_masked = subject is not None and subject.use_masks and bool(page.photos) and not subject.unmasked()
    return {
        "photos": bool(page.photos) or run is not None,
        "masks": _has_masks(run) if run is not None else is_masked,
        "prior": run is not None,
        "words": run is not None,
        "settings": run is not None,
        "train": run is not None and run.status.status == "done",
        "result": run is not None and run.has_adapter,
        "publish": any(page.status(job).status == "done" for job in page.jobs("publish")[:1]),
    }[step]


def _note(page: Page, step: str) -> str:
    if step == "photos":
        if page.photos:
            return f"{len(page.photos)} in"
        return "show your subject" if page.run is None else "in a folder"
    if step == "masks":
        return _mask_note(page)
    if page.run is None:
        return {
            "prior": "what stays",
            "words": "its name",
            "settings": "how to learn",
            "train": "watch it",
            "result": "try it",
            "publish": "share it",
        }[step]
    if step == "prior":
        return _PRIOR_WORDS[prior_of(list(page.run.datasets))]
    if step == "words":
        return page.run.title
    status = page.run.status
    if step == "settings":
        return f"{page.run.config.max_train_steps} steps"
    if step == "train":
        is_under_way = status.status == "running" and status.step
        return f"{percent(status)} %" if is_under_way else _status_word(status)
    if step == "result":
        num_images = sum(at > 0 for at, _, _ in page.run_history.samples)
        return f"{num_images} image{'s' * (num_images != 1)}" if num_images else "not yet"
    jobs = page.jobs("publish")[:1]
    return _PUBLISH_WORDS[page.status(jobs[0]).status] if jobs else "not yet"


def _mask_note(page: Page) -> str:
    job = page.mask_job
    if job is not None and not page.status(job).is_final:
        return "looking"
    if page.run is not None:
        return "with masks" if _has_masks(page.run) else "without"
    if page.subject is None or not page.subject.use_masks:
        return "point at it"
    num_missing = len(page.subject.unmasked())
    return f"{num_missing} missing" if num_missing else f"{len(page.photos)} found"


def _has_masks(run: Run) -> bool:
    return any(dataset.dataset_type == "conditioning" for dataset in run.datasets)


_PRIOR_WORDS = {
    "base": "images",
    "noise": "the paper's",
    "image-free": "no images",
    "none": "nothing",
}
_PUBLISH_WORDS = {**_STATUS_WORDS, "running": "uploading", "done": "published"}


def _open(page: Page, clicked: dict[str, Any]) -> View:
    if clicked.get("kind") == "subject":
        return View(subject_id=clicked.get("id", ""))
    run = next((run for run in page.runs if run.dir.name == clicked.get("id")), None)
    is_done = run is not None and run.status.status == "done"
    return View(run_id=clicked.get("id", ""), step="result" if is_done else "train")


def _resume(page: Page, clicked: dict[str, Any]) -> View:
    run_dir = page.workspace.run_dir(clicked.get("id", ""))
    resume_run(run_dir)
    return View(run_id=run_dir.name, step="train")


def _delete(page: Page, clicked: dict[str, Any]) -> View:
    name = clicked.get("id", "")
    if clicked.get("kind") == "subject":
        delete_draft(page.workspace, name)
    else:
        delete_run(page.workspace, name)
    return View() if name in (page.view.run_id, page.view.subject_id) else page.view
