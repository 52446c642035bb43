"""Step 3: what keeps the model from forgetting everything else of the subject's class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from dreamspace.config import class_prompt, load_preset, prior_of
from dreamspace.config.sections import BASE_MODEL_SETTINGS
from dreamspace.data.photos import import_photos
from dreamspace.jobs.launcher import stop
from dreamspace.jobs.new_run import writable_folder
from dreamspace.jobs.secrecy import refuse_tokens
from dreamspace.ui.guide import QUIET, Guide
from dreamspace.ui.new_training import (
    DEFAULT_PRESET,
    Form,
    check_base_model,
    check_disk,
    class_images,
    shown_config,
    start_job,
)
from dreamspace.ui.page import Page, View, render
from dreamspace.ui.photos_step import forget_uploads, report_of
from dreamspace.ui.prior_panels import PRIORS, effect_panel, images_panel
from dreamspace.ui.settings_form import build_field, shown_value

CLASS_IMAGES = 24


@dataclass(frozen=True)
class PriorFields:
    """The fields of the step; `prior` is filled by the cards."""

    prior: gr.Textbox
    num_class_images: gr.Number
    class_prompts: gr.Textbox
    loss_weight: Component

    @property
    def inputs(self) -> list[Component]:
        """Those that a `Form` takes by themselves, in its order."""
        return [self.prior, self.num_class_images, self.class_prompts]


@dataclass(frozen=True)
class PriorStep:
    """The step while it is built: its fields, and what has events."""

    fields: PriorFields
    cards: gr.HTML
    images: gr.HTML
    report: gr.HTML
    draw: gr.Button
    own: gr.File


def build(guide: Guide) -> PriorStep:
    """Build the step; `wire` connects it, once the fields of the other steps are there."""
    guide.html(lambda page: render("prior_intro.html"))
    config = load_preset(DEFAULT_PRESET).config
    with gr.Row(elem_classes="ds-columns"):
        with gr.Column(scale=7, min_width=300):
            cards = guide.html(None, events=("choose_prior",), elem_id="prior-cards")
            prior = gr.Textbox("base", visible="hidden", elem_id="prior")
            with gr.Column(elem_classes="ds-card", elem_id="class-images") as details:
                guide.html(lambda page: Markup('<h2 class="ds-overline">Class images</h2>'))
                with gr.Row(elem_classes="ds-fields"):
                    prompts = gr.Textbox(
                        label="What they show", info="A prompt a line; empty takes the class word.",
                        lines=2, max_length=2000, elem_id="class-prompts",
                    )  # fmt: skip
                    count = gr.Number(
                        value=CLASS_IMAGES, precision=0, step=4, label="How many", elem_id="num-class-images",
                        info="What is missing is drawn, now or when the training begins.",
                    )  # fmt: skip
                    weight = build_field("prior_loss_weight", config)
                draw = gr.Button("Draw class images now", elem_id="draw")
                with gr.Accordion("Use class photos of your own", open=False, elem_id="own-class"):
                    own = gr.File(
                        file_count="multiple", show_label=False, height=120,
                        elem_id="class-upload", elem_classes="ds-drop",
                    )  # fmt: skip
                    report = guide.html(None)
        with gr.Column(scale=5, min_width=300, elem_classes="ds-sticky"):
            effect = guide.html(None, elem_id="prior-effect")
            images = guide.html(None, events=("stop_prior",), elem_id="prior-images")
            go_on = gr.Button(
                "Continue to the words", variant="primary", elem_id="to-words", elem_classes="ds-next"
            )
    guide.follow_fields([cards, details, weight, prompts, draw, effect, images], _described, _news)
    guide.link(go_on.click, lambda page, clicked: replace(page.view, step="words"))
    found = PriorFields(prior, count, prompts, weight)
    _fill(guide, found)
    return PriorStep(found, cards, images, report, draw, own)


def _fill(guide: Guide, found: PriorFields) -> None:
    guide.form(found.prior, lambda page: prior_of(list(page.run.datasets)) if page.run else "base")
    guide.form(found.num_class_images, lambda page: shown_config(page).num_class_images or CLASS_IMAGES)
    guide.form(found.class_prompts, _shown_prompts)
    guide.form(found.loss_weight, lambda page: shown_value("prior_loss_weight", shown_config(page)))


def wire(
    guide: Guide, step: PriorStep, inputs: Sequence[Component], read: Callable[[tuple[Any, ...]], Form]
) -> None:
    """Connect the step.

    Args:
        inputs: the fields of all steps, of which `read` makes a form.
    """

    def draw(page: Page, clicked: dict[str, Any], *values: Any) -> View:
        _draw(page, read(values))
        return page.view

    def add(
        page: Page, clicked: dict[str, Any], files: list[str] | None, *values: Any
    ) -> tuple[View, None, str]:
        paths = [Path(file) for file in files or []]
        return page.view, None, _add(page, read(values), paths)

    def stop_drawing(page: Page, clicked: dict[str, Any], *values: Any) -> View:
        job = page.prior_job(read(values).prior_dir(page.workspace))
        if job is not None:
            stop(job)
        return page.view

    step.cards.choose_prior(_choose, None, step.fields.prior, **QUIET)
    guide.link(step.draw.click, draw, inputs, busy=step.images)
    guide.link(step.own.upload, add, [step.own, *inputs], [step.own, step.report], busy=step.own)
    guide.link(step.images.stop_prior, stop_drawing, inputs)


def _described(page: Page, form: Form) -> tuple[Any, ...]:
    """What follows from the fields, in the order in which it is sent to the page."""
    made = class_prompt(form.class_word) if form.class_word.strip() else "a photo of a dog"
    return (
        str(render("prior_cards.html", priors=PRIORS, chosen=form.prior)),
        gr.update(visible=form.needs_class_images),
        gr.update(visible=form.prior == "noise"),
        gr.update(placeholder=made),
        gr.update(interactive=len(class_images(page, form)) < (form.num_class_images or 0)),
        effect_panel(page, form),
        images_panel(page, form),
    )


def _choose(event: gr.EventData) -> str:
    chosen = event._data.get("prior") if isinstance(event._data, dict) else None
    return chosen if chosen in PRIORS else "none"


def _shown_prompts(page: Page) -> str:
    """A run's own class prompts; "" where they were made from its class word."""
    datasets = list(page.run.datasets) if page.run else []
    prompts = next((d.instance_prompts for d in datasets if d.is_trained and d.is_regularisation_data), [])
    class_word = page.run.config.class_word if page.run else None
    is_made = bool(class_word) and prompts == [class_prompt(class_word)]
    return "" if is_made else "\n".join(prompts)


def _news(page: Page) -> str:
    """Changes with every class image and every event of the newest job that draws some."""
    jobs = page.all_jobs.get("prior", [])[:1]
    seen = [(job.name, page.status(job), list(page.history(job).previews.values())[-1:]) for job in jobs]
    folders = [folder.stat().st_mtime_ns for folder in sorted(page.workspace.priors.glob("*/*"))]
    return str(hash(repr((seen, folders))))


def _draw(page: Page, form: Form) -> None:
    """Submit a job that draws what the folder lacks.

    Raises:
        ValueError: if the words, the number or the base model are wrong, or it is at work already.
    """
    config = form.config()
    check_base_model(form.model)
    check_disk(page.workspace)
    refuse_tokens("\n".join(form.prompts), "The class prompts")
    if config.num_class_images < 1:
        raise ValueError("The number of class images is 0. Say how many, such as 24.")
    folder = writable_folder(form.prior_dir(page.workspace))
    job = page.prior_job(folder)
    if job is not None and not page.status(job).is_final:
        raise ValueError("These class images are being drawn already.")
    arguments = {
        "model": form.model,
        "model_settings": config.model_dump(include=set(BASE_MODEL_SETTINGS)),
        "prompts": form.prompts,
        "count": config.num_class_images,
        "seed": 0,  # as a training draws them
        "out": str(folder),
    }
    start_job(page.workspace, f"class images {form.class_word}", "prior", arguments)


def _add(page: Page, form: Form, paths: list[Path]) -> str:
    """Import class photos of the visitor's own; they are taken before drawn ones."""
    check_base_model(form.model)
    try:
        return report_of(import_photos(paths, writable_folder(form.prior_dir(page.workspace))))
    finally:
        forget_uploads(paths)
