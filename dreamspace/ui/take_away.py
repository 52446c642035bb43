"""The end of step 7: what was trained, in each format that it has, and the settings for SimpleTuner."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dreamspace.config.exports import ExportFormat, formats, kind_of_weights
from dreamspace.hub.base_model import merged_size_bytes
from dreamspace.jobs.launcher import stop
from dreamspace.jobs.workspace import JobStatus
from dreamspace.run_folder import (
    adapter_folder,
    merged_folder,
    token_beside,
    unfinished,
    weights_file,
    weights_name,
)
from dreamspace.ui.downloads import Form, adapter_url, pair_url
from dreamspace.ui.guide import Guide
from dreamspace.ui.library import Run, job_arguments
from dreamspace.ui.new_training import start_job
from dreamspace.ui.page import Page, View, render

TITLES: dict[ExportFormat, tuple[str, str]] = {
    "diffusers": ("LoRA", "One file, for diffusers and whatever else loads LoRA weights."),
    "kohya": ("LoRA for ComfyUI, A1111 and Forge", "One file, under the names that these programs know."),
    "lycoris": ("LyCORIS", "One file, for programs that load LyCORIS weights."),
    "merged": ("The whole model", "A folder in diffusers' layout with the training merged in, as a zip."),
}
TOKEN_TITLE = ("The learned token", "One small file, for diffusers and what else loads such tokens.")
TOKEN_BESIDE_TEXT = "One small file, to be loaded beside the weights: they were trained with this word."
FULL_TITLE = (
    "The trained weights",
    "One file with all weights of the denoiser, without the rest of the model.",
)

SPARE = 1.05
"""The share of a whole model's size that has to be free before it is made."""


@dataclass(frozen=True)
class _Weights:
    """Weights of a run: the finished ones, a checkpoint's, or the average of either.

    Attributes:
        step: of the checkpoint; None for the finished ones.
        last_step: of the finished ones, where they are not the only ones.
    """

    step: int | None = None
    is_averaged: bool = False
    last_step: int | None = None

    @property
    def what(self) -> str:
        """Their name in an address."""
        return weights_name(self.step, self.is_averaged)

    @property
    def label(self) -> str:
        """What is written on their button."""
        step = self.last_step if self.step is None else self.step
        if step is None:
            return "Averaged" if self.is_averaged else "Download"
        return f"Step {step}{', averaged' if self.is_averaged else ''}"

    def file(self, run: Run) -> Path | None:
        """The file that holds them."""
        return weights_file(adapter_folder(run.dir, self.step, self.is_averaged))

    def token_file(self, run: Run) -> Path | None:
        """The file of a token that was learned beside them."""
        return token_beside(adapter_folder(run.dir, self.step, self.is_averaged))


def build(guide: Guide, chosen_step: Callable[[Page], int]) -> None:
    """Build the panel.

    Args:
        chosen_step: the step of the checkpoint that the visitor looks at.
    """

    def show(page: Page) -> Markup:
        return download_panel(page, chosen_step(page))

    events = ("make_merged", "stop_merging", "delete_merged")
    panel = guide.html(show, events=events, elem_id="download")
    guide.link(panel.make_merged, _make, busy=panel)
    guide.link(panel.stop_merging, _stop)
    guide.link(panel.delete_merged, _delete)


def download_panel(page: Page, step: int) -> Markup:
    """What can be taken away of the run: the checkpoint of a step, and the finished weights beside it."""
    if page.run is None:
        return Markup("")
    run, kind = page.run, kind_of_weights(page.run.config)
    is_apart = step in page.saved_steps and step != run.config.max_train_steps
    weights = _weights(run, [step, None] if is_apart else [None])
    rows = []
    for name in formats(run.config) if weights else ():
        own = {"full": FULL_TITLE, "token": TOKEN_TITLE} if name == "diffusers" else {}
        title, text = own.get(kind, TITLES[name])
        is_merged = name == "merged"
        rows.append(
            {
                "title": title,
                "text": text,
                "is_merged": is_merged,
                "size_bytes": _merged_size_bytes(run) if is_merged else weights[0].file(run).stat().st_size,
                "entries": [
                    _merged_entry(page, run, found) if is_merged else _entry(run, found, _form(name))
                    for found in weights
                ],
            }
        )
    rows[1:1] = _token_rows(run, weights)
    return render(
        "download.html",
        rows=rows,
        noun={"full": "weights", "token": "token"}.get(kind, "adapter"),
        is_finished=run.has_adapter,
        prompt=run.prompt,
        model=run.config.pretrained_model_name_or_path,
        pair=pair_url(run.dir),
    )


def _token_rows(run: Run, weights: list[_Weights]) -> list[dict[str, Any]]:
    """A row where a token was learned beside the weights."""
    found = [(one, file) for one in weights if (file := one.token_file(run)) is not None]
    if not found:
        return []
    row = {"title": TOKEN_TITLE[0], "text": TOKEN_BESIDE_TEXT, "is_merged": False}
    entries = [_entry(run, one, "token") for one, _ in found]
    return [{**row, "size_bytes": found[0][1].stat().st_size, "entries": entries}]


def _weights(run: Run, steps: list[int | None]) -> list[_Weights]:
    """Those of these steps that there are; None stands for the finished ones."""
    last_step = run.config.max_train_steps if len(steps) > 1 else None
    found = [_Weights(step, is_averaged, last_step) for step in steps for is_averaged in (False, True)]
    return [weights for weights in found if weights.file(run) is not None]


def _form(name: ExportFormat) -> Form:
    return "kohya" if name == "kohya" else "own"


def _entry(run: Run, weights: _Weights, form: Form) -> dict[str, Any]:
    """One button: a link to a file that is there."""
    return {
        "what": weights.what,
        "label": weights.label,
        "url": adapter_url(run.dir, weights.what, form),
        "state": "ready",
        "percent": 0,
        "status": None,
    }


def _merged_entry(page: Page, run: Run, weights: _Weights) -> dict[str, Any]:
    """The same of a whole model: what makes it, or how far that is, where it is not there."""
    entry = _entry(run, weights, "merged")
    folder = merged_folder(run.dir, weights.what)
    if folder.is_dir():
        return {**entry, "size_bytes": _size_bytes(folder)}
    job = _merging(page, folder)
    status = page.status(job) if job is not None else None
    is_at_work = status is not None and not status.is_final
    return {
        **entry,
        "state": "at work" if is_at_work else "none",
        "status": status,
        "percent": _percent(run, folder, status) if is_at_work else 0,
    }


def _merging(page: Page, folder: Path) -> Path | None:
    """The newest job that makes a merged model in a folder."""
    jobs = [job for job in page.jobs("export") if job_arguments(job).get("out") == str(folder)]
    return jobs[0] if jobs else None


def _percent(run: Run, folder: Path, status: JobStatus) -> int:
    """How much of a merged model is written, in percent."""
    size = _merged_size_bytes(run)
    written = _size_bytes(unfinished(folder)) if status.status == "running" else 0
    return min(99, round(100 * written / size)) if size else 0


def _size_bytes(folder: Path) -> int:
    """The size of what lies in a folder; files may come and go while it is looked at."""
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors") if path.exists())


def _merged_size_bytes(run: Run) -> int | None:
    return merged_size_bytes(run.config.pretrained_model_name_or_path)


def _asked(page: Page, clicked: dict[str, Any]) -> tuple[Run, _Weights] | None:
    """The run that is open, and the weights that were clicked on; None if there are none of the name."""
    if page.run is None:
        return None
    known = {weights.what: weights for weights in _weights(page.run, [None, *page.saved_steps])}
    found = known.get(str(clicked.get("what", "")))
    return (page.run, found) if found is not None else None


def _make(page: Page, clicked: dict[str, Any]) -> View:
    """Submit the job that merges weights into the base model.

    Raises:
        ValueError: if it is at work already, or the disk cannot hold the model.
    """
    asked = _asked(page, clicked)
    if asked is None or "merged" not in formats(asked[0].config):
        return page.view
    run, weights = asked
    folder = merged_folder(run.dir, weights.what)
    job = _merging(page, folder)
    if folder.is_dir() or (job is not None and not page.status(job).is_final):
        raise ValueError("This model is made, or being made, already.")
    needed, free = SPARE * (_merged_size_bytes(run) or 0), shutil.disk_usage(run.dir).free
    if free < needed:
        raise ValueError(
            f"The disk has {free / 1e9:.1f} GB free, and the whole model needs {needed / 1e9:.1f} GB. "
            "Free some space, or take the trained weights above: they do the same beside the base model."
        )
    arguments = {
        "run_dir": str(run.dir),
        "checkpoint": weights.step,
        "ema": weights.is_averaged,
        "format": "merged",
        "out": str(folder),
    }
    start_job(page.workspace, f"export {run.title}", "export", arguments, needs_gpu=False)
    return page.view


def _stop(page: Page, clicked: dict[str, Any]) -> View:
    asked = _asked(page, clicked)
    job = _merging(page, merged_folder(asked[0].dir, asked[1].what)) if asked is not None else None
    if job is not None:
        stop(job)
    return page.view


def _delete(page: Page, clicked: dict[str, Any]) -> View:
    asked = _asked(page, clicked)
    if asked is not None:
        shutil.rmtree(merged_folder(asked[0].dir, asked[1].what), ignore_errors=True)
    return page.view
