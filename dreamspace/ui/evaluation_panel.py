"""What a run is told of its images: curves while it trains, and which checkpoint to take in the result."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from dreamspace.config import RunConfig
from dreamspace.evaluation.leaks import leak_table
from dreamspace.evaluation.plots import MEASURES, recommended_candidate, steps_plot, verdict_plot
from dreamspace.jobs.events import Event
from dreamspace.jobs.launcher import stop
from dreamspace.run_folder import REPORT_FILE
from dreamspace.ui.chart import Point
from dreamspace.ui.evaluation_grids import evaluation_grids, image_path
from dreamspace.ui.guide import Guide
from dreamspace.ui.history import History
from dreamspace.ui.media import picture_url, report_url
from dreamspace.ui.new_training import start_job
from dreamspace.ui.page import Page, View, render

WIDTH, HEIGHT = 300, 90

CURVES = (
    (
        "clip_score",
        "CLIP score",
        ("mean",),
        "How well images follow their prompts, not how good they are. Above about 0.3 it hardly tells images "
        "apart; compare within this run only.",
    ),
    (
        "fidelity",
        "Likeness",
        ("dino", "clip_i"),
        "To photos of the subject. Rising is learning; only the result weighs it against the prompts.",
    ),
    (
        "eval_loss",
        "Eval loss",
        ("loss",),
        "At the same photos, noise and timesteps each time. Falling is learning, rising is overfitting; the "
        "recommendation does not look at it.",
    ),
)
"""Kind of event, title, the value that is shown (the first that there is), and how to read it."""

MODELS = {"dino": "DINO", "clip_i": "CLIP-I"}
"""What compares images with photos, by the field that it fills."""

# A dot that is chosen shows its images, which may lie below the window.
_VERDICT_SCRIPT = """
element.addEventListener("click", (click) => {
  if (!click.target.closest("[data-checkpoint]")) return;
  document.getElementById("comparison").scrollIntoView({ block: "nearest", behavior: "smooth" });
});
"""


def build_scores(guide: Guide) -> None:
    """The curves beside the loss."""
    guide.html(_scores, elem_id="scores")


def build_verdict(guide: Guide, chosen_step: Callable[[Page], int]) -> gr.HTML:
    """The recommendation, and a button for a run that has none, or an old one.

    Args:
        chosen_step: the step of the checkpoint that the visitor looks at.

    Returns:
        What has the event `choose_checkpoint`.
    """

    def show(page: Page) -> Markup:
        return _verdict(page, chosen_step(page))

    events = ("stop_evaluation", "choose_checkpoint")
    verdict = guide.html(show, events=events, script=_VERDICT_SCRIPT, elem_id="verdict")
    evaluate = gr.Button("Compare all checkpoints", elem_id="evaluate")
    guide.follow(evaluate, lambda page: gr.update(visible=_can_be_evaluated(page)))
    guide.link(evaluate.click, _evaluate, busy=verdict)
    guide.link(verdict.stop_evaluation, _stop)
    return verdict


def recommended(page: Page) -> dict[str, Any] | None:
    """The candidate of the evaluation that is to be taken."""
    outcome = page.evaluation
    return recommended_candidate(outcome) if outcome is not None else None


def recommended_step(page: Page) -> int | None:
    """The step of the checkpoint that is recommended, if one is."""
    best = recommended(page)
    return best["step"] if best is not None else None


def evaluated_steps(page: Page) -> set[int]:
    """The steps of the checkpoints that were compared, which have images of it."""
    return {each["step"] for each in page.evaluation["candidates"]} if page.evaluation else set()


def evaluated_pairs(page: Page, step: int) -> list[dict[str, Any]]:
    """Of each prompt of the evaluation the base model's image, and a checkpoint's plain and averaged one."""
    if page.evaluation is None:
        return []
    seed, prompts = page.evaluation["seeds"][0], page.evaluation["all_prompts"]
    return [
        {
            "prompt": prompt,
            "title": f"seed {seed}",
            "label": "averaged" if each["weights"] == "ema" else "after",
            "before": _picture(page, "base", prompts.index(prompt)),
            "after": _picture(page, each["folder"], prompts.index(prompt)),
        }
        for prompt in page.evaluation["prompts"]
        for each in page.evaluation["candidates"]
        if each["step"] == step
    ]


def _scores(page: Page) -> Markup:
    if page.run is None:
        return Markup("")
    history, last = page.run_history, page.run.config.max_train_steps
    curves = []
    for kind, title, fields, sentence in CURVES:
        lines = _lines(history, kind, fields)
        if lines:
            measure = MODELS.get(_shown(list(history.scores[kind].values())[-1], fields))
            title = f"{title} ({measure})" if measure else title
            curves.append({"title": title, "sentence": sentence, **_curves(lines, last)})
    mixture = history.mixture or {}
    fidelity = list(history.scores.get("fidelity", {}).values())
    return render(
        "scores.html",
        curves=curves,
        held_out=mixture.get("held_out") or [],
        is_weak=bool(fidelity) and fidelity[-1]["evidence"] == "weak",
        has_own_clip=bool(fidelity) and _has_own_clip(page.run.config),
        is_averaged=any(line["is_averaged"] for curve in curves for line in curve["lines"]),
    )


def _has_own_clip(config: RunConfig) -> bool:
    """Whether images are scored by mini's own CLIP."""
    is_mini = config.pretrained_model_name_or_path == "mini"
    return is_mini and config.pretrained_evaluation_model_name_or_path is None


def _lines(history: History, kind: str, fields: Sequence[str]) -> dict[str, list[Point]]:
    """The values over the steps, by weights or dataset; all weights begin where the base model is."""
    lines: dict[str, list[Point]] = {}
    for (step, of), event in history.scores.get(kind, {}).items():
        field = _shown(event, fields)
        if field is not None:
            lines.setdefault(of or "", []).append((step, event[field]))
    base = lines.pop("base", [])
    return {of: [*base, *points] for of, points in lines.items()} or ({"trained": base} if base else {})


def _shown(event: Event, fields: Sequence[str]) -> str | None:
    """The first of the fields that has a value."""
    return next((field for field in fields if event.get(field) is not None), None)


def _curves(lines: dict[str, list[Point]], last_step: int) -> dict[str, Any]:
    """Lines and dots in one small plot, from the lowest to the highest value of all of them."""
    every = [point for points in lines.values() for point in points]
    low, high = min(value for _, value in every), max(value for _, value in every)
    right, span = max(last_step, *(step for step, _ in every), 1), max(high - low, 1e-9)
    drawn = []
    for of, points in lines.items():
        places = [
            (round(WIDTH * step / right, 1), round(HEIGHT - HEIGHT * (value - low) / span, 1))
            for step, value in points
        ]
        is_averaged = of == "ema"
        is_named = len(lines) > 1 or is_averaged
        drawn.append(
            {
                "name": {"trained": "plain", "ema": "averaged"}.get(of, of) if is_named else "",
                "is_averaged": is_averaged,
                "now": points[-1][1],
                "path": " ".join(f"{x},{y}" for x, y in places),
                "dots": places,
            }
        )
    return {"lines": drawn, "low": low, "high": high, "last": right}


def _verdict(page: Page, chosen: int = 0) -> Markup:
    if page.run is None:
        return Markup("")
    job, outcome = _job(page), page.evaluation
    status = page.status(job) if job is not None else None

    def address(step: int) -> str:
        return replace(page.view, checkpoint=step).address

    if outcome is None:
        return render("verdict.html", outcome=None, status=status)
    return render(
        "verdict.html",
        outcome=outcome,
        status=status,
        missing=_missing(page),
        best=recommended_candidate(outcome),
        leaks=leak_table(outcome),
        grids=evaluation_grids(page.run.dir, outcome),
        measures=MEASURES,
        plots=[plot for plot in (verdict_plot(outcome, address, chosen), steps_plot(outcome)) if plot],
        url=lambda path, width_px=None: picture_url(page.run.dir, path, page.evaluation_version, width_px),
        report=report_url(page.run.dir, page.evaluation_version) if _has_report(page) else None,
    )


def _picture(page: Page, folder: str, index: int) -> str:
    """The address of a checkpoint's image of a prompt, at the first seed."""
    return picture_url(page.run.dir, image_path(folder, f"{index}-0"), page.evaluation_version)


def _missing(page: Page) -> list[int]:
    """The saved steps that the evaluation does not know, such as those of a run that went on after it."""
    return [step for step in page.saved_steps if step not in evaluated_steps(page)]


def _has_report(page: Page) -> bool:
    return (page.run.dir / REPORT_FILE).is_file()


def _job(page: Page) -> Path | None:
    """The newest job that evaluates the run."""
    return next(iter(page.jobs("evaluate")), None)


def _can_be_evaluated(page: Page) -> bool:
    job = _job(page)
    is_at_work = job is not None and not page.status(job).is_final
    if page.run is None or not page.run.status.is_final or is_at_work:
        return False
    return bool(_missing(page)) or (page.evaluation is not None and not _has_report(page))


def _evaluate(page: Page, clicked: dict[str, Any]) -> View:
    if _can_be_evaluated(page):
        arguments = {"run_dir": str(page.run.dir)}
        start_job(page.workspace, f"evaluate {page.run.title}", "evaluate", arguments)
    return page.view


def _stop(page: Page, clicked: dict[str, Any]) -> View:
    job = _job(page)
    if job is not None:
        stop(job)
    return page.view
