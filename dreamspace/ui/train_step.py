"""Step 6: the training as it goes on: how far it is, what it draws, what went wrong."""

from dataclasses import replace
from typing import Any

import gradio as gr
from markupsafe import Markup

from dreamspace.jobs.control import ControlName, asked, request
from dreamspace.jobs.events import Event
from dreamspace.jobs.launcher import stop
from dreamspace.jobs.log import log_tail
from dreamspace.ui import evaluation_panel
from dreamspace.ui.chart import loss_chart
from dreamspace.ui.guide import Guide
from dreamspace.ui.history import Shot
from dreamspace.ui.library import Run
from dreamspace.ui.media import event_picture_url
from dreamspace.ui.new_training import resume_run
from dreamspace.ui.overview import percent
from dreamspace.ui.page import Page, View, render

LOG_BYTES = 8_000

_STAGE_WORDS = {
    "": "Starting",
    "queued": "Waiting for its turn",
    "loading": "Loading the model",
    "caching": "Preparing the photos",
    "prior": "Drawing class images",
    "training": "Training",
    "validating": "Drawing pictures",
    "saving": "Saving what was trained and testing it",
    "evaluating": "Comparing the checkpoints",
}
_HEADLINES = {
    "queued": "Waiting for its turn",
    "stopping": "Stopping",
    "stopped": "Stopped",
    "done": "It is done",
    "failed": "It could not go on",
    "crashed": "It crashed",
}
_PROVEN = "What was trained is saved, was loaded again, and changes what the model draws."

# Follows the end of the log, unless the reader has scrolled up.
_LOG_SCRIPT = """
let follows = true;
const box = () => element.querySelector("pre");
element.addEventListener("scroll", (event) => {
  const at = event.target;
  if (at === box()) follows = at.scrollTop + at.clientHeight > at.scrollHeight - 40;
}, true);
watch("value", () => { const at = box(); if (at && follows) at.scrollTop = at.scrollHeight; });
"""


def build(guide: Guide) -> None:
    """Build the step."""
    state = guide.html(_state, elem_id="state")
    with gr.Row(elem_classes="ds-actions"):
        stop_button = gr.Button("Stop and save", elem_id="stop")
        resume = gr.Button("Resume", variant="primary", elem_id="resume")
        sample = gr.Button("Sample now", elem_id="sample-now")
        save = gr.Button("Save now", elem_id="save-now")
        result = gr.Button("See the result", variant="primary", elem_id="to-result")
        again = gr.Button("Train again with other settings", elem_id="again")
    with gr.Row(elem_classes="ds-columns"):
        with gr.Column(scale=5, min_width=300):
            guide.html(_live, elem_id="live")
        with gr.Column(scale=7, min_width=300):
            guide.html(_chart, elem_id="chart")
    evaluation_panel.build_scores(guide)
    guide.html(_grid, elem_id="grid")
    with gr.Accordion("Log", open=False, elem_classes="ds-card", elem_id="log-box"):
        guide.html(_log, script=_LOG_SCRIPT, elem_id="log")

    guide.follow(stop_button, lambda page: _shown(page, ("queued", "running", "stopping"), "stopping"))
    guide.follow(sample, lambda page: _to_ask(page, "sample"))
    guide.follow(save, lambda page: _to_ask(page, "save"))
    guide.link(sample.click, lambda page, clicked: _ask(page, "sample"))
    guide.link(save.click, lambda page, clicked: _ask(page, "save"))
    guide.follow(resume, lambda page: _shown(page, ("stopped", "failed", "crashed")))
    guide.follow(result, lambda page: gr.update(visible=_status(page) == "done"))
    guide.follow(again, lambda page: _shown(page, ("stopped", "failed", "crashed", "done")))
    guide.link(stop_button.click, _stop)
    guide.link(resume.click, _resume, busy=state)
    guide.link(result.click, lambda page, clicked: replace(page.view, step="result"))
    guide.link(again.click, lambda page, clicked: replace(page.view, step="settings"))


def _status(page: Page) -> str:
    return page.run.status.status if page.run else ""


def _shown(page: Page, statuses: tuple[str, ...], disabled: str = "") -> dict[str, Any]:
    return gr.update(visible=_status(page) in statuses, interactive=_status(page) != disabled)


def _stop(page: Page, clicked: dict[str, Any]) -> View:
    if page.run is not None:
        stop(page.run.dir)
    return page.view


def _to_ask(page: Page, name: ControlName) -> dict[str, Any]:
    """The button that asks for something: there while steps are to come, and pressed until it is heard."""
    return gr.update(visible=_hears(page, name), interactive=not page.run or not asked(page.run.dir, name))


def _hears(page: Page, name: ControlName) -> bool:
    """Whether the run will do what it is asked for: it is between steps, and draws images at all.

    Before the first step there is nothing to save, and the images are the base model's.
    """
    if page.run is None or _status(page) != "running" or not page.run.status.step:
        return False
    can_draw = name != "sample" or not page.run.config.validation_disable
    return can_draw and page.run.status.stage not in ("saving", "evaluating")


def _ask(page: Page, name: ControlName) -> View:
    """Ask the running training for images, or for a checkpoint, at its next step."""
    if _hears(page, name):
        request(page.run.dir, name)
    return page.view


def _resume(page: Page, clicked: dict[str, Any]) -> View:
    if page.run is not None:
        resume_run(page.run.dir)
    return page.view


def _state(page: Page) -> Markup:
    """The headline, the bar, and what to know or to do."""
    if page.run is None:
        return Markup("")
    status, history = page.run.status, page.run_history
    progress = history.progress
    is_training = status.status == "running" and status.stage == "training"
    headline = _HEADLINES.get(status.status) or _STAGE_WORDS.get(status.stage, status.stage.capitalize())
    titles = {run.dir.name: run.title for run in page.runs}
    return render(
        "state.html",
        title=page.run.title,
        status=status,
        headline=headline,
        message=_PROVEN if status.status == "done" else _unless_said(status.message, headline),
        is_preparing=status.status == "running" and status.step == 0,
        percent=100 if status.status == "done" else percent(status),
        num_steps=page.run.config.max_train_steps,
        eta_seconds=progress["eta_seconds"] if progress and is_training else None,
        steps_per_second=progress["steps_per_second"] if progress and is_training else None,
        waits_for=[(name, titles.get(name)) for name in status.waits_for],
        mixture=history.mixture,
        warnings=history.warnings,
        checkpoints=history.checkpoints,
    )


def _unless_said(message: str, headline: str) -> str:
    return "" if message.rstrip(".") == headline else message


def _live(page: Page) -> Markup:
    """Of each validation prompt, seed and size the newest picture: drawn, or coming into focus."""
    if page.run is None:
        return Markup("")
    history = page.run_history
    tiles: dict[Shot, dict[str, Any]] = {shot: {} for shot in history.shots}
    for event in sorted(history.samples.values(), key=lambda event: (event["step"], event["seq"])):
        tiles[Shot.of(event)] = {"event": event, "step": event["step"], "focus": None}
    for event in history.previews.values():
        shown = tiles.get(Shot.of(event))
        if shown is None or shown["event"]["seq"] < event["seq"]:
            focus = round(100 * event["inference_step"] / event["num_inference_steps"])
            tiles[Shot.of(event)] = {"event": event, "step": event["step"], "focus": focus}
    pictures = [
        {
            **tile,
            "prompt": shot.prompt,
            "title": history.title(shot),
            "url": event_picture_url(page.run.dir, tile["event"], 640),
        }
        for shot, tile in tiles.items()
    ]
    return render("live.html", pictures=pictures, status=page.run.status, photos=page.photos)


def _chart(page: Page) -> Markup:
    if page.run is None:
        return Markup("")
    chart = loss_chart(page.run_history.losses, page.run.config.max_train_steps)
    return chart or render("no_chart.html")


def _grid(page: Page) -> Markup:
    """Images by checkpoint: a row for each prompt, seed and size, a column for each step, the base first."""
    history = page.run_history
    steps = history.sampled_steps
    if page.run is None or len(steps) < 2:
        return Markup("")
    rows = [
        (
            shot.prompt,
            history.title(shot),
            [_cell(page.run, history.shown(step, shot)) for step in steps],
        )
        for shot in history.shots
    ]
    return render("grid.html", steps=steps, rows=rows, checkpoints=history.checkpoints)


def _cell(run: Run, events: list[Event]) -> list[tuple[str, str, bool]]:
    """Of each event the addresses of the small and the whole picture, and whether the average drew it."""
    return [
        (event_picture_url(run.dir, event, 320), event_picture_url(run.dir, event), event["weights"] == "ema")
        for event in events
    ]


def _log(page: Page) -> Markup:
    text = log_tail(page.run.dir, LOG_BYTES) if page.run else ""
    return Markup("<pre class='ds-log'>{}</pre>").format(text or "Nothing was printed so far.")
