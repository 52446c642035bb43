"""Step 4: how it is to be learned, and how long that takes."""

from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
from gradio.components import Component

from dreamspace.config import instance_prompt, list_presets, load_preset
from dreamspace.data.lint import lint_run
from dreamspace.mini.world import CLASSES
from dreamspace.ui import prior_step
from dreamspace.ui.guide import QUIET, Guide
from dreamspace.ui.new_training import Form, preset_of, shown_config, start_run
from dreamspace.ui.page import Page, View, render
from dreamspace.ui.prior_panels import PRIORS, expected
from dreamspace.ui.prior_step import PriorStep
from dreamspace.ui.settings_form import build_field, expert_settings, shown_value

FEW_PHOTOS = 10
"""Below this many photos, scheduled sampling is recommended."""

# As SimpleTuner's DreamBooth guide recommends it.
ROLLOUT = {
    "scheduled_sampling_max_step_offset": 10,
    "scheduled_sampling_probability": 1.0,
    "scheduled_sampling_ramp_steps": 1000,
}


@dataclass(frozen=True)
class _Fields:
    """The fields of the step, and the pieces of HTML that follow from what they hold."""

    preset: gr.Radio
    num_steps: gr.Number
    rollout: gr.Checkbox
    experts: dict[str, Component]
    about: gr.HTML
    advice: gr.HTML


def build(guide: Guide, class_word: gr.Textbox, token: gr.Textbox, prior: PriorStep) -> None:
    """Build the step, and connect the one before; the words come from step 1."""
    guide.html(lambda page: render("settings_intro.html"))
    with gr.Row(elem_classes="ds-columns"):
        with gr.Column(scale=7, min_width=300):
            fields = _build_fields(guide)
        with gr.Column(scale=5, min_width=300, elem_classes="ds-sticky"):
            plan = guide.html(None, elem_id="plan")
            start = gr.Button("Start training", variant="primary", elem_id="start", elem_classes="ds-next")
    _fill(guide, fields)
    experts = {**fields.experts, "prior_loss_weight": prior.fields.loss_weight}
    inputs = [class_word, token, fields.preset, fields.num_steps, *prior.fields.inputs, *experts.values()]

    def read(values: tuple[Any, ...]) -> Form:
        return Form(*values[:7], dict(zip(experts, values[7:], strict=True)))

    def describe(address: str, *values: Any) -> tuple[str, str, str]:
        page, form = guide.page(address), read(values)
        return _about(form), _advice(page, form), _plan(page, form)

    def start_training(page: Page, clicked: dict[str, Any], *values: Any) -> View:
        if page.subject is None or not page.photos:
            raise ValueError("There are no photos yet. Add some in step 1, or choose a sample subject there.")
        run_dir = start_run(page.workspace, page.subject, read(values))
        return View(run_id=run_dir.name, step="train")

    gr.on(
        [guide.address.change, prior.news.change, *(field.change for field in inputs)],
        describe,
        [guide.address, *inputs],
        [fields.about, fields.advice, plan],
        trigger_mode="always_last",
        **QUIET,
    )
    guide.link(start.click, start_training, inputs, fills_form=True, busy=plan)
    prior_step.wire(guide, prior, inputs, read)


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
        rollout = gr.Checkbox(
            label="Let it practise on its own drawings (scheduled sampling)",
            info="From time to time the model denoises a few steps by itself before it learns, and so meets "
            "its own small errors. It helps where photos are few; it is experimental.",
            elem_id="rollout",
        )
        advice = guide.html(None, elem_id="rollout-advice")
    experts: dict[str, Component] = {}
    with gr.Accordion("Expert settings", open=False, elem_id="expert", elem_classes="ds-card"):
        for title, settings in expert_settings().items():
            with gr.Accordion(title, open=False, elem_classes="ds-section"), gr.Row(elem_classes="ds-fields"):
                for name in settings:
                    experts[name] = build_field(name, config)
    return _Fields(preset, num_steps, rollout, experts, about, advice)


def _fill(guide: Guide, fields: _Fields) -> None:
    """Let the fields show the run that is opened, and the preset that is chosen."""
    guide.form(fields.preset, lambda page: preset_of(page).name)
    guide.form(fields.num_steps, lambda page: shown_config(page).max_train_steps)
    guide.form(fields.rollout, lambda page: shown_config(page).scheduled_sampling_max_step_offset > 0)
    for name, component in fields.experts.items():
        guide.form(component, lambda page, name=name: shown_value(name, shown_config(page)))

    def take_preset(name: str) -> list[Any]:
        config = load_preset(name).config
        values = [shown_value(setting, config) for setting in fields.experts]
        return [config.max_train_steps, config.scheduled_sampling_max_step_offset > 0, *values]

    fields.preset.input(
        take_preset, fields.preset, [fields.num_steps, fields.rollout, *fields.experts.values()], **QUIET
    )
    fields.rollout.input(
        rollout_settings,
        [fields.rollout, fields.num_steps],
        [fields.experts[name] for name in ROLLOUT],
        **QUIET,
    )


def rollout_settings(is_on: bool, num_steps: float | None) -> list[float]:
    """What the checkbox writes into the expert settings; the ramp is no longer than the run."""
    if not is_on:
        return [0, 0.0, 0]
    *others, ramp_steps = ROLLOUT.values()
    return [*others, min(ramp_steps, int(num_steps or ramp_steps))]


def _about(form: Form) -> str:
    preset = load_preset(form.preset)
    return str(render("preset.html", description=preset.description, hardware=preset.hardware))


def _advice(page: Page, form: Form) -> str:
    """Whether scheduled sampling is recommended here, and what it costs."""
    is_on = bool(form.experts["scheduled_sampling_max_step_offset"])
    on, ramp = dict(ROLLOUT), min(ROLLOUT["scheduled_sampling_ramp_steps"], int(form.num_steps or 1))
    if not is_on:
        form = replace(form, experts={**form.experts, **on, "scheduled_sampling_ramp_steps": ramp})
    try:
        found = expected(page, form)
    except ValueError:
        found = None
    is_recommended = 0 < len(page.photos) < FEW_PHOTOS and not is_on
    return str(
        render(
            "rollout.html",
            estimate=found,
            is_on=is_on,
            is_recommended=is_recommended,
            num_photos=len(page.photos),
        )
    )


def _plan(page: Page, form: Form) -> str:
    """What will happen, with pictures, how long it takes, and by which rule."""
    found, problem = None, ""
    try:
        config = form.config()
        found = expected(page, form)
    except ValueError as error:
        config, problem = shown_config(page), str(error)
    class_word = form.class_word.strip()
    is_unknown = config.pretrained_model_name_or_path == "mini" and class_word and class_word not in CLASSES
    subject = page.subject
    return str(
        render(
            "plan.html",
            photos=page.photos,
            prompt=instance_prompt(form.token, class_word) if class_word else "",
            class_word=class_word,
            config=config,
            prior=PRIORS[form.prior][0] if form.prior in PRIORS else form.prior,
            num_class_images=config.num_class_images,
            num_captions=len(subject.captions()) if subject else 0,
            use_masks=bool(subject and subject.use_masks),
            unmasked=subject.unmasked() if subject and subject.use_masks else [],
            problem=problem,
            hints=[] if problem else [f"{hint.key}: {hint.message}" for hint in lint_run(config, [])],
            estimate=found,
            known_classes=CLASSES if is_unknown else (),
            ahead=[run.title for run in page.runs if not run.status.is_final],
        )
    )
