"""Step 5: which model learns how, whether it fits into this machine, and how long it takes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from dreamspace.ui import choices_panels, import_panel, prior_step, words_step
from dreamspace.ui.choices_panels import rollout_settings
from dreamspace.ui.framing import SIZES_PX
from dreamspace.ui.guide import QUIET, Guide
from dreamspace.ui.new_training import (
    DEFAULT_PRESET,
    Form,
    all_presets,
    preset_of,
    shown_config,
    shown_resolution,
    start_run,
)
from dreamspace.ui.page import Page, View
from dreamspace.ui.prior_step import PriorStep
from dreamspace.ui.settings_form import as_shown, build_field, expert_settings, shown_value
from dreamspace.ui.words_step import WordsStep


@dataclass(frozen=True)
class _Fields:
    """The fields of the step."""

    preset: gr.Textbox
    num_steps: gr.Number
    resolution: gr.Number
    rollout: gr.Checkbox
    experts: dict[str, Component]

    @property
    def all(self) -> list[Component]:
        """Those that a choice fills, in the order of `values`."""
        return [self.preset, self.num_steps, self.resolution, self.rollout, *self.experts.values()]

    def values(self, settings: Mapping[str, Any]) -> list[Any]:
        """What fills the fields for some settings; the others stay as they are."""
        shown = {name: as_shown(value) for name, value in settings.items()}
        rollout = settings.get("scheduled_sampling_max_step_offset")
        return [
            shown.get("preset", gr.skip()),
            shown.get("max_train_steps", gr.skip()),
            shown.get("resolution", gr.skip()),
            gr.skip() if rollout is None else rollout > 0,
            *(shown.get(name, gr.skip()) for name in self.experts),
        ]


def build(
    guide: Guide, class_word: gr.Textbox, token: gr.Textbox, prior: PriorStep, words: WordsStep
) -> None:
    """Build the step, and connect the two before; class word and token come from step 1."""
    guide.html(choices_panels.intro)
    with gr.Row(elem_classes="ds-columns"):
        with gr.Column(scale=8, min_width=300):
            tables = [guide.html(None, events=("choose",), elem_id=name) for name in choices_panels.TABLES]
            fields, advice, pair = _build_fields(guide)
        with gr.Column(scale=4, min_width=300, elem_classes="ds-sticky"):
            plan = guide.html(None, events=("choose",), elem_id="plan")
            start = gr.Button("Start training", variant="primary", elem_id="start", elem_classes="ds-next")
    _fill(guide, fields)
    experts = {**fields.experts, "prior_loss_weight": prior.fields.loss_weight}
    steps = [fields.preset, fields.num_steps, *prior.fields.inputs, fields.resolution]
    inputs = [class_word, token, *steps, *experts.values()]

    def read(values: tuple[Any, ...]) -> Form:
        return Form(*values[:8], dict(zip(experts, values[8:], strict=True)))

    def start_training(page: Page, clicked: dict[str, Any], *values: Any) -> View:
        if page.subject is None or not page.photos:
            raise ValueError("There are no photos yet. Add some in step 1, or choose a sample subject there.")
        run_dir = start_run(page.workspace, page.subject, read(values))
        return View(run_id=run_dir.name, step="train")

    guide.fields(inputs, read)
    guide.follow_fields([*tables, advice, plan], choices_panels.describe)
    _wire_choices(guide, fields, [*tables, plan])
    import_panel.wire(guide, pair, prior.fields.prior, fields.all, fields.values)
    guide.link(start.click, start_training, inputs, fills_form=True, busy=plan)
    prior_step.wire(guide, prior, inputs, read)
    words_step.wire(guide, words, token, inputs, read)


def _build_fields(guide: Guide) -> tuple[_Fields, gr.HTML, import_panel.ImportPanel]:
    usual = all_presets()[DEFAULT_PRESET]
    config = usual.config
    with gr.Column(elem_classes="ds-card"):
        preset = gr.Textbox(usual.name, visible="hidden", elem_id="preset")
        with gr.Row(elem_classes="ds-fields"):
            num_steps = gr.Number(
                value=config.max_train_steps,
                precision=0,
                step=50,
                label="Steps",
                info="More steps learn the subject better, until it takes over everything else.",
                elem_id="num-steps",
            )
            resolution = gr.Number(
                value=usual.resolution,
                precision=0,
                step=SIZES_PX.step,
                label="Picture size (px)",
                info="A model draws best at the size it was made for; less takes less memory and time.",
                elem_id="resolution",
            )
        rollout = gr.Checkbox(
            label="Let it practise on its own drawings (scheduled sampling)",
            info="From time to time the model denoises a few steps by itself before it learns, and so meets "
            "its own small errors. It helps where photos are few; it is experimental.",
            elem_id="rollout",
        )
        advice = guide.html(None, elem_id="rollout-advice")
    pair = import_panel.build(guide)
    experts: dict[str, Component] = {}
    with gr.Accordion("Expert settings", open=False, elem_id="expert", elem_classes="ds-card"):
        for title, settings in expert_settings().items():
            with gr.Accordion(title, open=False, elem_classes="ds-section"), gr.Row(elem_classes="ds-fields"):
                for name in settings:
                    experts[name] = build_field(name, config)
    return _Fields(preset, num_steps, resolution, rollout, experts), advice, pair


def _fill(guide: Guide, fields: _Fields) -> None:
    """Let the fields show the run that is opened, and the preset that is chosen."""
    guide.form(fields.preset, lambda page: preset_of(page).name)
    guide.form(fields.num_steps, lambda page: shown_config(page).max_train_steps)
    guide.form(fields.resolution, shown_resolution)
    guide.form(fields.rollout, lambda page: shown_config(page).scheduled_sampling_max_step_offset > 0)
    for name, component in fields.experts.items():
        guide.form(component, lambda page, name=name: shown_value(name, shown_config(page)))
    fields.rollout.input(
        rollout_settings,
        [fields.rollout, fields.num_steps],
        [fields.experts[name] for name in choices_panels.ROLLOUT],
        **QUIET,
    )

    def resize(page: Page, clicked: dict[str, Any], size: float | None) -> View:
        return choices_panels.resized(page, size)

    guide.link(
        fields.resolution.input, resize, [fields.resolution], fills_sizes=True, trigger_mode="always_last"
    )


def _wire_choices(guide: Guide, fields: _Fields, tables: Sequence[gr.HTML]) -> None:
    def choose(page: Page, clicked: dict[str, Any]) -> tuple[Any, ...]:
        view, settings = chosen(page, str(clicked.get("choice", "")), {"resolution", *fields.experts})
        return view, *fields.values(settings)

    for table in tables:
        guide.link(table.choose, choose, [], fields.all, fills_sizes=True)


def chosen(page: Page, choice: str, names: set[str]) -> tuple[View, dict[str, Any]]:
    """Where a click on a row leads, and the settings that it fills in; what is no setting is left out.

    Args:
        choice: JSON as a row carries it: settings by name, a preset, or a model by family and flavour.
        names: of the settings that can be set.
    """
    try:
        given = json.loads(choice)
    except ValueError:
        given = {}
    if not isinstance(given, dict):
        return page.view, {}
    settings = {name: value for name, value in given.items() if name in names}
    view, whole = choices_panels.with_start(page, str(given.get("preset", "")), str(given.get("model", "")))
    size = settings.get("resolution")
    if size is not None:
        view = choices_panels.resized(page, size, view)
    return view, {**whole, **settings}
