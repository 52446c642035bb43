"""In step 7: going on from a checkpoint, as a training of its own."""

import shutil
from collections.abc import Callable
from typing import Any

import gradio as gr
from markupsafe import Markup

from dreamspace.jobs.branch import branch_run
from dreamspace.jobs.launcher import submit
from dreamspace.run_folder import checkpoint_folder
from dreamspace.ui.guide import Guide
from dreamspace.ui.new_training import check_disk
from dreamspace.ui.page import Page, View, render

STRETCHED, RESTARTED = "stretched", "restarted"

SCHEDULES = [
    ("Stretched, as if all these steps had been planned", STRETCHED),
    ("From its beginning again, at the checkpoint", RESTARTED),
]


def build(guide: Guide, chosen_step: Callable[[Page], int]) -> None:
    """Build the panel.

    Args:
        chosen_step: the step of the checkpoint that the visitor looks at.
    """

    def go_on(page: Page, clicked: dict[str, Any], more: float | None, schedule: str) -> View:
        return continue_run(page, chosen_step(page), more, schedule)

    def show(page: Page) -> Markup:
        return continue_intro(page, chosen_step(page))

    with gr.Column(elem_classes="ds-card", elem_id="continue") as card:
        intro = guide.html(show)
        with gr.Row(elem_classes="ds-fields"):
            more = gr.Number(
                label="More steps", precision=0, minimum=1, elem_id="more-steps", info="After the checkpoint."
            )
            schedule = gr.Radio(
                SCHEDULES,
                value=STRETCHED,
                label="Learning rate",
                elem_id="schedule",
                info="A constant one is the same either way.",
            )
        with gr.Row(elem_classes="ds-actions"):
            button = gr.Button("Train it further", elem_id="go-on")
    guide.follow(card, lambda page: gr.update(visible=bool(page.saved_steps)))
    guide.follow(button, lambda page: gr.update(interactive=chosen_step(page) in page.saved_steps))
    guide.form(more, lambda page: max(1, page.run.config.max_train_steps // 2) if page.run else 100)
    guide.form(schedule, lambda page: STRETCHED)
    guide.link(button.click, go_on, [more, schedule], fills_form=True, busy=intro)


def continue_intro(page: Page, step: int) -> Markup:
    """Where it would go on, or which checkpoints there are to choose from."""
    return render("continue.html", step=step, saved=page.saved_steps)


def continue_run(page: Page, step: int, more: float | None, schedule: str) -> View:
    """Submit a new run that goes on from a checkpoint of the one that is open, which stays as it is.

    Args:
        more: steps after the checkpoint.
        schedule: `STRETCHED` or `RESTARTED`.

    Raises:
        ValueError: if the step was not saved, there are no steps to train, or the disk cannot hold the run.
    """
    if page.run is None:
        return page.view
    if step not in page.saved_steps:
        saved = ", ".join(map(str, page.saved_steps)) or "none yet"
        raise ValueError(f"Step {step} was not saved. Choose one of the saved steps above: {saved}.")
    num_more = int(more or 0)
    if num_more < 1:
        raise ValueError(f"The number of more steps must be 1 or above, got {num_more}. Give it some.")
    if schedule not in (STRETCHED, RESTARTED):
        raise ValueError(f"There is no schedule '{schedule}'. It is {STRETCHED} or {RESTARTED}.")
    check_disk(page.workspace)
    run_dir = page.workspace.new_run_dir(page.run.title)
    try:
        checkpoint = checkpoint_folder(page.run.dir, step)
        branch_run(run_dir, checkpoint, step + num_more, restart_schedule=schedule == RESTARTED)
        submit(run_dir, "train", {"resume": True})
    except ValueError:
        shutil.rmtree(run_dir)
        raise
    return View(run_id=run_dir.name, step="train")
