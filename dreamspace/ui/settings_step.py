"""Step 2: how it is to be learned, and how long that takes."""

from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from dreamspace.config import RunConfig, instance_prompt, list_presets, load_preset
from dreamspace.data.photos import photo_files
from dreamspace.jobs.new_run import prior_folder
from dreamspace.mini.world import CLASSES
from dreamspace.ui.estimate import LOAD_AND_SAVE_SECONDS, estimate, measured_seconds_per_row
from dreamspace.ui.guide import QUIET, Guide
from dreamspace.ui.media import class_url
from dreamspace.ui.new_training import Form, made_prompts, start_run
from dreamspace.ui.page import Page, View, render
from dreamspace.ui.settings_form import build_field, expert_settings, shown_value

CLASS_IMAGES = 24


@dataclass(frozen=True)
class _Fields:
    """The fields of the step, and the pieces of HTML that follow from what they hold."""

    preset: gr.Radio
    num_steps: gr.Number
    with_prior: gr.Checkbox
    num_class_images: gr.Number
    experts: dict[str, Component]
    about: gr.HTML
    pictures: gr.HTML


def build(guide: Guide, class_word: gr.Textbox, token: gr.Textbox) -> None:
    """Build the step; the words come from step 1."""
    guide.html(lambda page: render("settings_intro.html"))
    with gr.Row(elem_classes="ds-columns"):
        with gr.Column(scale=7, min_width=300):
            fields = _build_fields(guide)
        with gr.Column(scale=5, min_width=300, elem_classes="ds-sticky"):
            plan = guide.html(None, elem_id="plan")
            start = gr.Button("Start training", variant="primary", elem_id="start", elem_classes="ds-next")
    _fill(guide, fields)
    choices = [fields.preset, fields.num_steps, fields.with_prior, fields.num_class_images]
    inputs = [class_word, token, *choices, *fields.experts.values()]

    def read(values: tuple[Any, ...]) -> Form:
        return Form(*values[:6], dict(zip(fields.experts, values[6:], strict=True)))

    def describe(address: str, *values: Any) -> tuple[str, str, str, dict[str, Any]]:
        page, form = guide.page(address), read(values)
        return _about(form), _pictures(page, form), _plan(page, form), gr.update(visible=form.with_prior)

    def start_training(page: Page, clicked: dict[str, Any], *values: Any) -> View:
        if not page.photos:
            raise ValueError("There are no photos yet. Add some in step 1, or choose a sample subject there.")
        run_dir = start_run(page.workspace, page.subject.photos_dir, read(values))
        return View(run_id=run_dir.name, step="train")

    gr.on(
        [guide.address.change, *(field.change for field in inputs)],
        describe,
        [guide.address, *inputs],
        [fields.about, fields.pictures, plan, fields.num_class_images],
        trigger_mode="always_last",
        **QUIET,
    )
    guide.link(start.click, start_training, inputs, fills_form=True, busy=plan)


def _build_fields(guide: Guide) -> _Fields:
    names = list_presets()
    config = load_preset(names[0]).config
    with gr.Column(elem_classes="ds-card"):
        preset = gr.Radio(names, value=names[0], label="Preset", elem_id="preset")
        about = guide.html(None, elem_id="preset-about")
        num_steps = gr.Number(
            value=config.max_train_steps,
            precision=0,
            step=50,
            label="Steps",
            info="More steps learn the subject better, until it takes over everything else.",
            elem_id="num-steps",
        )
    with gr.Column(elem_classes="ds-card"):
        with_prior = gr.Checkbox(
            value=True,
            label="Keep what the model knew (prior preservation)",
            info="Class images, drawn by the base model first, are trained along, so that other things of "
            "the same class do not turn into your subject.",
            elem_id="prior",
        )
        pictures = guide.html(None, elem_id="prior-pictures")
        num_class_images = gr.Number(
            value=CLASS_IMAGES, precision=0, step=4, label="Class images", elem_id="num-class-images"
        )
    experts: dict[str, Component] = {}
    with gr.Accordion("Expert settings", open=False, elem_id="expert", elem_classes="ds-card"):
        for title, settings in expert_settings().items():
            gr.HTML(f'<h3 class="ds-overline">{title}</h3>', apply_default_css=False)
            with gr.Row(elem_classes="ds-fields"):
                for name in settings:
                    experts[name] = build_field(name, config)
    return _Fields(preset, num_steps, with_prior, num_class_images, experts, about, pictures)


def _fill(guide: Guide, fields: _Fields) -> None:
    """Let the fields show the run that is opened, and the preset that is chosen."""
    guide.form(fields.preset, _preset_of)
    guide.form(fields.num_steps, lambda page: _shown_config(page).max_train_steps)
    guide.form(fields.with_prior, lambda page: page.run is None or page.run.config.num_class_images > 0)
    guide.form(fields.num_class_images, lambda page: _shown_config(page).num_class_images or CLASS_IMAGES)
    for name, component in fields.experts.items():
        guide.form(component, lambda page, name=name: shown_value(name, _shown_config(page)))

    def take_preset(name: str) -> list[Any]:
        config = load_preset(name).config
        return [config.max_train_steps, *(shown_value(setting, config) for setting in fields.experts)]

    fields.preset.input(take_preset, fields.preset, [fields.num_steps, *fields.experts.values()], **QUIET)


def _shown_config(page: Page) -> RunConfig:
    """What the form is filled with: the run's settings, else the first preset's."""
    if page.run is None:
        return load_preset(list_presets()[0]).config
    config = page.run.config
    # Prompts that were made from the words are left empty, so that they are made anew from other words.
    is_made = config.validation_prompts == made_prompts(config)
    return config.model_copy(update={"validation_prompts": []}) if is_made else config


def _preset_of(page: Page) -> str:
    """The preset that a run most likely came from: the first with its base model."""
    names = list_presets()
    model = _shown_config(page).pretrained_model_name_or_path
    return next((n for n in names if load_preset(n).config.pretrained_model_name_or_path == model), names[0])


def _about(form: Form) -> str:
    preset = load_preset(form.preset)
    return str(render("preset.html", description=preset.description, hardware=preset.hardware))


def _pictures(page: Page, form: Form) -> str:
    """What the class images are for, in pictures: the subject, and other things of its class."""
    if not form.with_prior or not page.photos:
        return ""
    class_word = form.class_word.strip()
    return str(
        render(
            "prior.html",
            photo=page.photos[0],
            class_word=class_word or "thing",
            token=form.token.strip(),
            class_pictures=[url for seed in (1, 2, 3) if (url := class_url(class_word, seed))],
        )
    )


def _plan(page: Page, form: Form) -> str:
    """What will happen, with pictures, how long it takes, and by which rule."""
    try:
        config, problem = form.config(), ""
    except ValueError as error:
        config, problem = _shown_config(page), str(error)
    class_word = form.class_word.strip()
    past = [(run.config, page.history(run.dir)) for run in page.runs]
    num_ready = len(
        photo_files(prior_folder(page.workspace, config.pretrained_model_name_or_path, class_word))
    )
    is_unknown = config.pretrained_model_name_or_path == "mini" and class_word and class_word not in CLASSES
    return str(
        render(
            "plan.html",
            photos=page.photos,
            prompt=instance_prompt(form.token, class_word) if class_word else "",
            class_word=class_word,
            config=config,
            problem=problem,
            estimate=estimate(config, measured_seconds_per_row(past, config), num_ready),
            load_and_save_seconds=LOAD_AND_SAVE_SECONDS,
            known_classes=CLASSES if is_unknown else (),
            ahead=[run.title for run in page.runs if not run.status.is_final],
        )
    )
