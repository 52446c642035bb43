"""Step 7: before and after at the same seed, pictures of one's own prompts, going on, what to take away."""

from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from dreamspace.config import MAX_SEED
from dreamspace.jobs.launcher import stop
from dreamspace.ui import continue_panel, evaluation_panel, take_away
from dreamspace.ui.guide import Guide
from dreamspace.ui.library import Run, job_arguments
from dreamspace.ui.media import event_picture_url
from dreamspace.ui.new_training import start_job
from dreamspace.ui.page import Page, View, render

MAX_JOBS_SHOWN = 12
MAX_PROMPTS = 16

_SCENES = ("on a beach", "in the snow")


def build(guide: Guide) -> None:
    """Build the step."""
    verdict = evaluation_panel.build_verdict(guide, chosen_step)
    choice = guide.html(_choice, events=("choose_checkpoint",), elem_id="choice")
    guide.html(_comparison, elem_id="comparison")
    with gr.Row(elem_classes="ds-columns"):
        with gr.Column(scale=5, min_width=300), gr.Column(elem_classes="ds-card"):
            gr.HTML('<h2 class="ds-overline">Try your own words</h2>', apply_default_css=False)
            prompt = gr.Textbox(
                label="Prompt", info="One image a line.", lines=3, elem_id="own-prompt", max_length=2000
            )
            with gr.Accordion("More", open=False), gr.Row(elem_classes="ds-fields"):
                seed = gr.Number(label="Seed", value=1, precision=0, elem_id="own-seed")
                steps = gr.Number(
                    label="Denoising steps", precision=0, minimum=1, maximum=200, elem_id="own-steps"
                )
                guidance = gr.Number(label="Guidance", minimum=0, maximum=30, elem_id="own-guidance")
            make = gr.Button("Make images", variant="primary", elem_id="make")
        with gr.Column(scale=7, min_width=300):
            made = guide.html(_made, events=("stop_job",), elem_id="made")
    continue_panel.build(guide, chosen_step)
    take_away.build(guide, chosen_step)

    guide.form(prompt, _proposed_prompts)
    guide.form(steps, lambda page: page.run.config.validation_num_inference_steps if page.run else 20)
    guide.form(guidance, lambda page: page.run.config.validation_guidance if page.run else 5.0)
    for listener in (choice.choose_checkpoint, verdict.choose_checkpoint):
        guide.lead(listener, "checkpoint")
    guide.link(make.click, _make, [prompt, seed, steps, guidance], [seed], busy=made)
    guide.link(made.stop_job, _stop)


def _proposed_prompts(page: Page) -> str:
    return "\n".join(f"{page.run.prompt} {scene}" for scene in _SCENES) if page.run else ""


def steps_to_choose(page: Page) -> list[int]:
    """The steps that have images, a checkpoint, or both."""
    evaluated = evaluation_panel.evaluated_steps(page)
    return sorted({*page.run_history.sampled_steps, *page.saved_steps, *evaluated} - {0})


def chosen_step(page: Page) -> int:
    """The step that is shown and drawn with: the chosen one, the recommended one, else the last with images.

    0 without any.
    """
    for step in (page.view.checkpoint, evaluation_panel.recommended_step(page)):
        if step in steps_to_choose(page):
            return step
    return max(page.run_history.sampled_steps, default=0)


def _choice(page: Page) -> Markup:
    return render(
        "choice.html", steps=steps_to_choose(page), chosen=chosen_step(page),
        recommended=evaluation_panel.recommended(page),
        is_live=bool(page.run) and not page.run.status.is_final,
    )  # fmt: skip


def _comparison(page: Page) -> Markup:
    """Of each prompt, seed and size the base model's image against the trained one's and its average.

    A checkpoint at which none was drawn is shown by the images that it was judged by.
    """
    if page.run is None:
        return Markup("")
    history, step = page.run_history, chosen_step(page)
    pairs = []
    for shot in history.shots:
        before = history.samples.get((0, shot, "base"))
        pairs += [
            {
                "prompt": shot.prompt,
                "title": history.title(shot) or f"seed {shot.seed}",
                "label": "averaged" if after["weights"] == "ema" else "after",
                "before": event_picture_url(page.run.dir, before) if before else None,
                "after": event_picture_url(page.run.dir, after),
            }
            for after in history.shown(step, shot)
        ]
    pairs = pairs or evaluation_panel.evaluated_pairs(page, step)
    return render("comparison.html", pairs=pairs, step=step)


def _make(
    page: Page,
    clicked: dict[str, Any],
    text: str,
    seed: float | None,
    num_inference_steps: float | None,
    guidance: float | None,
) -> tuple[View, int]:
    """Submit a `generate` job with a prompt for each line of the text; the next one has the next seed.

    Raises:
        ValueError: without a prompt, with more than `MAX_PROMPTS`, with a seed that cannot be, or where the
            chosen step was not saved.
    """
    prompts = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    if page.run is None:
        return page.view, int(seed or 0)
    if len(prompts) > MAX_PROMPTS:
        raise ValueError(
            f"These are {len(prompts)} prompts, and {MAX_PROMPTS} fit at a time. Take some lines out."
        )
    if not prompts:
        raise ValueError("The prompt is empty. Describe the picture, with the subject's own word in it.")
    seed = int(seed or 0)
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"The seed must be 0 to {MAX_SEED}, got {seed}. Choose one in between.")
    arguments = {
        "run_dir": str(page.run.dir),
        "prompts": prompts,
        "seed": seed,
        "num_inference_steps": int(num_inference_steps) if num_inference_steps else None,
        "guidance": guidance,
        "checkpoint": checkpoint_to_use(page, page.run),
        "ema": takes_average(page),
    }
    start_job(page.workspace, f"images {page.run.title}", "generate", arguments)
    return page.view, (seed + 1) % (MAX_SEED + 1)


def checkpoint_to_use(page: Page, run: Run) -> int | None:
    """The checkpoint of the chosen step; None for the finished adapter.

    Raises:
        ValueError: if that step was not saved; it names those that were.
    """
    step = chosen_step(page)
    if run.has_adapter and step in (0, run.config.max_train_steps):
        return None
    if step in page.saved_steps:
        return step
    if not page.saved_steps:
        raise ValueError("Nothing was saved yet to make images with. Wait for the first checkpoint.")
    saved = ", ".join(map(str, page.saved_steps))
    raise ValueError(
        f"Step {step} was drawn but not saved. Choose one of the saved steps in Result: {saved}."
    )


def takes_average(page: Page) -> bool:
    """Whether the chosen step stands for its averaged weights: where these are what is recommended."""
    best = evaluation_panel.recommended(page)
    return best is not None and best["weights"] == "ema" and best["step"] == chosen_step(page)


def _stop(page: Page, clicked: dict[str, Any]) -> View:
    job_dir = page.workspace.job_dir(clicked.get("id", ""))
    if job_dir in page.jobs("generate"):
        stop(job_dir)
    return page.view


def _made(page: Page) -> Markup:
    """The pictures of the run's `generate` jobs, the newest first."""
    jobs = [_made_by(page, job_dir) for job_dir in page.jobs("generate")[:MAX_JOBS_SHOWN]]
    return render("made.html", jobs=jobs, prompt=page.run.prompt if page.run else "")


def _made_by(page: Page, job_dir: Path) -> dict[str, Any]:
    """A job and its pictures: drawn, coming into focus, or still to come."""
    history, status, arguments = page.history(job_dir), page.status(job_dir), job_arguments(job_dir)
    drawn = list(history.images.values())
    pictures = []
    for index, prompt in enumerate(arguments["prompts"]):
        preview = history.previews.get(index)
        if index < len(drawn):
            pictures.append({"prompt": prompt, "event": drawn[index], "focus": None})
        elif preview is not None and not status.is_final:
            focus = round(100 * preview["inference_step"] / preview["num_inference_steps"])
            pictures.append({"prompt": prompt, "event": preview, "focus": focus})
        elif not status.is_final:
            pictures.append({"prompt": prompt, "event": None, "focus": None})
    return {
        "id": job_dir.name,
        "dir": job_dir,
        "status": status,
        "pictures": pictures,
        "seed": arguments["seed"],
        "checkpoint": arguments.get("checkpoint"),
    }
