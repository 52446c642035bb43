"""Step 2: how it is to be learned, and how long that takes."""

import shutil
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from dreamspace.config import RunConfig, class_prompt, list_presets, load_preset
from dreamspace.jobs.launcher import submit
from dreamspace.jobs.new_run import prior_folder, write_run
from dreamspace.mini.world import CLASSES
from dreamspace.ui.estimate import estimate, measured_seconds_per_row
from dreamspace.ui.guide import Guide
from dreamspace.ui.media import class_url
from dreamspace.ui.page import Page, View, render
from dreamspace.ui.settings_form import build_field, changed_config, expert_settings, shown_value

CLASS_IMAGES = 24
MIN_FREE_BYTES = 500_000_000

# Expert settings that the estimated time depends on.
TIMED_SETTINGS = (
    "train_batch_size",
    "gradient_accumulation_steps",
    "validation_disable",
    "validation_prompts",
    "validation_step_interval",
    "validation_num_inference_steps",
)


def build(guide: Guide, class_word: gr.Textbox, token: gr.Textbox) -> None:
    """Build the step; the words come from step 1."""
    names = list_presets()
    first = load_preset(names[0])
    guide.html(lambda page: render("settings_intro.html"))
    with gr.Row(elem_classes="ds-columns"):
        with gr.Column(scale=7, min_width=300):
            with gr.Column(elem_classes="ds-card"):
                preset = gr.Radio(names, value=names[0], label="Preset", elem_id="preset")
                about = guide.html(None, elem_id="preset-about")
                steps = gr.Slider(
                    10, 2000, value=first.config.max_train_steps, step=10, label="Steps", elem_id="num-steps",
                    info="More steps learn the subject better, until it takes over everything else.",
                )  # fmt: skip
            with gr.Column(elem_classes="ds-card"):
                prior = gr.Checkbox(
                    value=True, label="Keep what the model knew (prior preservation)", elem_id="prior",
                    info="Class images, drawn by the base model first, are trained along, so that other things of "
                    "the same class do not turn into your subject.",
                )  # fmt: skip
                pictures = guide.html(None, elem_id="prior-pictures")
                num_class_images = gr.Slider(
                    4, 200, value=CLASS_IMAGES, step=4, label="Class images", elem_id="num-class-images"
                )
            with gr.Accordion("Expert settings", open=False, elem_id="expert", elem_classes="ds-card"):
                experts: dict[str, gr.components.Component] = {}
                for title, settings in expert_settings().items():
                    gr.HTML(f'<h3 class="ds-overline">{title}</h3>', apply_default_css=False)
                    with gr.Row(elem_classes="ds-fields"):
                        for name in settings:
                            experts[name] = build_field(name)
        with gr.Column(scale=5, min_width=300, elem_classes="ds-sticky"):
            plan = guide.html(None, elem_id="plan")
            start = gr.Button("Start training", variant="primary", elem_id="start", elem_classes="ds-next")

    guide.form(preset, lambda page: _preset_of(page))
    guide.form(steps, lambda page: _shown_config(page).max_train_steps)
    guide.form(prior, lambda page: page.run is None or page.run.config.num_class_images > 0)
    guide.form(num_class_images, lambda page: _shown_config(page).num_class_images or CLASS_IMAGES)
    for name, component in experts.items():
        guide.form(component, lambda page, name=name: shown_value(name, _shown_config(page)))

    fields = [class_word, token, preset, steps, prior, num_class_images, *experts.values()]
    quiet = {"show_progress": "hidden", "api_visibility": "private"}

    def read(*values: Any) -> "Form":
        return Form(*values[:6], dict(zip(experts, values[6:], strict=True)))

    def take_preset(name: str) -> list[Any]:
        config = load_preset(name).config
        return [config.max_train_steps, *(shown_value(name, config) for name in experts)]

    def describe(address: str, *values: Any) -> tuple[str, str, str, dict[str, Any]]:
        form = read(*values)
        page = guide.page(address)
        return _about(form), _pictures(page, form), _plan(page, form), gr.update(visible=form.prior)

    preset.input(take_preset, preset, [steps, *experts.values()], **quiet)
    watched = [class_word, preset, steps, prior, num_class_images, *(experts[name] for name in TIMED_SETTINGS)]
    gr.on(
        [guide.address.change, *(component.change for component in watched)],
        describe, [guide.address, *fields], [about, pictures, plan, num_class_images],
        trigger_mode="always_last", **quiet,
    )  # fmt: skip
    guide.link(start.click, lambda page, clicked, *values: start_run(page, read(*values)), fields)


@dataclass(frozen=True)
class Form:
    """What the fields of steps 1 and 2 hold."""

    class_word: str
    token: str
    preset: str
    num_steps: int
    prior: bool
    num_class_images: int
    experts: dict[str, Any]

    def config(self) -> RunConfig:
        """The configuration that the form describes.

        Raises:
            ValueError: one sentence for the first thing that is wrong.
        """
        base = load_preset(self.preset).config
        num_class_images = int(self.num_class_images) if self.prior else 0
        values = {**self.experts, "max_train_steps": self.num_steps, "num_class_images": num_class_images}
        return changed_config(base, values)


def start_run(page: Page, form: Form) -> View:
    """Write a new run and submit it; it waits in the queue where another one is at work.

    Raises:
        ValueError: if photos or words are missing, a setting is wrong, or the disk is nearly full.
    """
    if not page.photos:
        raise ValueError("There are no photos yet. Go back to step 1 and add some, or choose a sample subject.")
    class_word, token = form.class_word.strip(), form.token.strip()
    class_prompt(class_word)
    config = form.config()
    free_bytes = shutil.disk_usage(page.workspace.root).free
    if free_bytes < MIN_FREE_BYTES:
        raise ValueError(
            f"The disk has {free_bytes / 1e6:.0f} MB free, and a run needs {MIN_FREE_BYTES / 1e6:.0f} MB for its "
            "images and checkpoints. Free some space, or delete runs that you no longer need."
        )
    preset = replace(load_preset(form.preset), config=config)
    run_dir = page.workspace.new_run_dir(f"{token} {class_word}")
    prior_dir = None
    if config.num_class_images:
        prior_dir = prior_folder(page.workspace, config.pretrained_model_name_or_path, class_word)
    try:
        write_run(
            run_dir, preset, page.subject.photos_dir, class_word=class_word, token=token or None,
            num_class_images=config.num_class_images, prior_dir=prior_dir,
        )  # fmt: skip
    except ValueError:
        shutil.rmtree(run_dir)
        raise
    submit(run_dir, "train", {})
    return View(run_id=run_dir.name, step="train")


def _shown_config(page: Page) -> RunConfig:
    return page.run.config if page.run is not None else load_preset(list_presets()[0]).config


def _preset_of(page: Page) -> str:
    """The preset that a run most likely came from: the first with its base model."""
    names = list_presets()
    model = _shown_config(page).pretrained_model_name_or_path
    return next((n for n in names if load_preset(n).config.pretrained_model_name_or_path == model), names[0])


def _about(form: Form) -> str:
    preset = load_preset(form.preset)
    return str(render("preset.html", description=preset.description, hardware=preset.hardware))


def _pictures(page: Page, form: Form) -> str:
    """What the class images are for, in pictures: the subject, and another thing of its class."""
    if not form.prior or not page.photos:
        return ""
    class_word = form.class_word.strip()
    return str(
        render(
            "prior.html",
            photo=page.photos[0],
            class_word=class_word or "dog",
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
    measured = measured_seconds_per_row([(run.config, page.history(run.dir)) for run in page.runs], config)
    is_unknown = config.pretrained_model_name_or_path == "mini" and class_word and class_word not in CLASSES
    return str(
        render(
            "plan.html",
            photos=page.photos,
            token=form.token.strip(),
            class_word=class_word,
            config=config,
            problem=problem,
            estimate=estimate(config, measured),
            known_classes=CLASSES if is_unknown else (),
            ahead=[run.title for run in page.runs if not run.status.is_final],
        )
    )
