"""What step 5 shows: its tables of choices, and the plan that follows from them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dreamspace.config import RunConfig, instance_prompt, load_preset, subject_datasets
from dreamspace.config.families import DISTILLED_ADVICE, FEW_STEP_WARNING, distilled_family
from dreamspace.data.held_out import announcement, held_out_files
from dreamspace.data.lint import lint_run
from dreamspace.estimate.hardware import PRICES_DATE
from dreamspace.mini.world import CLASSES
from dreamspace.ui.forecast import Forecaster, capability, expected, forecaster, here, machine_title
from dreamspace.ui.framing import SIZES_PX
from dreamspace.ui.model_words import model_title
from dreamspace.ui.new_training import (
    DEFAULT_PRESET,
    Form,
    all_presets,
    gpu_gb,
    native_resolution,
    shown_config,
    shown_resolution,
    with_model,
)
from dreamspace.ui.options import (
    Need,
    adapter_options,
    model_families,
    precision_options,
    preset_options,
)
from dreamspace.ui.page import Page, View, render
from dreamspace.ui.prior_panels import PRIORS

TABLES = ("presets", "models", "adapters", "precisions")
"""The tables in the order in which `describe` makes them; names of elements of the page."""

RENTED_GB = 24
"""The GPU whose preset is taken where this machine has none that fits: what is rented most."""

FEW_PHOTOS = 10
"""Below this many photos, scheduled sampling is recommended."""

# As SimpleTuner's DreamBooth guide recommends it.
ROLLOUT = {
    "scheduled_sampling_max_step_offset": 10,
    "scheduled_sampling_probability": 1.0,
    "scheduled_sampling_ramp_steps": 1000,
}


def intro(page: Page) -> Markup:
    """The head of the step."""
    return render("settings_intro.html", machine=machine_title(), prices_date=PRICES_DATE)


def describe(page: Page, form: Form) -> list[str]:
    """The tables, the advice about scheduled sampling, and the plan; in the order in which they are sent."""
    try:
        config, resolution = form.config(), form.resolution_px
    except ValueError:
        # The plan says what is wrong; the tables show what would be right.
        config, resolution = shown_config(page), shown_resolution(page)
    forecast = forecaster(page, form)
    tables = [
        _presets(form, config, forecast),
        _models(config, forecast),
        _adapters(form, config, resolution, forecast),
        _precisions(config, resolution, forecast),
    ]
    return [*map(str, tables), _advice(page, form), _plan(page, form)]


def with_start(page: Page, preset: str, model: str) -> tuple[View, dict[str, Any]]:
    """Where choosing a preset or a model leads, and the settings that the fields are filled with.

    A model comes with the preset that suits it and this machine best.
    """
    presets = all_presets()
    if model:
        preset = best_preset(model)
    if preset not in presets:
        return page.view, {}
    view = replace(page.view, preset=preset, model=model if model != preset else "", resolution=None)
    chosen = presets[preset]
    config = with_model(chosen.config, model)
    size = native_resolution(model) or chosen.resolution
    return view, {**config.model_dump(), "preset": preset, "resolution": size}


def best_preset(model: str) -> str:
    """The preset to train a model with: of its own or else of its family, the largest that fits."""
    presets = all_presets()
    family, _, _ = model.partition("/")
    if model in presets:
        return model
    wanted = with_model(RunConfig(), model)
    of_family = [p for p in presets.values() if p.name != DEFAULT_PRESET and p.config.model_family == family]
    name = wanted.pretrained_model_name_or_path
    of_model = [p for p in of_family if p.config.pretrained_model_name_or_path == name] or of_family
    forecast = Forecaster("none", 0.0, 0)
    fitting = [p for p in of_model if (need := forecast(p.config, p.resolution)) and need.is_for_here]
    if fitting or not of_model:
        return fitting[-1].name if fitting else DEFAULT_PRESET
    return next((p.name for p in of_model if gpu_gb(p.name) >= RENTED_GB), of_model[-1].name)


def resized(page: Page, size: float | None, view: View | None = None) -> View:
    """The view with another size of training pictures; one that cannot be is left to the plan to say."""
    view = page.view if view is None else view
    there = int(size or 0)
    return replace(view, resolution=there) if there in SIZES_PX else view


def rollout_settings(is_on: bool, num_steps: float | None) -> list[float]:
    """What the checkbox writes into the expert settings; the ramp is no longer than the run."""
    if not is_on:
        return [0, 0.0, 0]
    *others, ramp_steps = ROLLOUT.values()
    return [*others, min(ramp_steps, int(num_steps or ramp_steps))]


def _presets(form: Form, config: RunConfig, forecast: Forecaster) -> Markup:
    presets = all_presets()
    model = presets[form.preset].config.pretrained_model_name_or_path if form.preset in presets else None
    chosen = form.preset if config.pretrained_model_name_or_path == model else ""
    options = preset_options(presets.values(), chosen, forecast)
    fitting = [option for option in options if option.need and option.need.is_for_here]
    others = [option for option in options if option not in fitting]
    return render("presets.html", fitting=fitting, others=others, has_gpu=here().device == "cuda")


def _models(config: RunConfig, forecast: Forecaster) -> Markup:
    def need(model: str) -> Need | None:
        preset = all_presets()[best_preset(model)]
        size = native_resolution(model) or preset.resolution
        return forecast(with_model(preset.config, model), size)

    mini, families = model_families(config, need)
    model = config.pretrained_model_name_or_path
    of_few_steps = distilled_family(model)
    advice = DISTILLED_ADVICE[of_few_steps] if of_few_steps else None
    distilled = {"warning": FEW_STEP_WARNING, "advice": advice} if advice else None
    is_listed = mini.is_chosen or any(family.is_chosen for family in families)
    own = "" if is_listed else model
    return render("models.html", mini=mini, families=families, distilled=distilled, own=own)


def _adapters(form: Form, config: RunConfig, resolution: int, forecast: Forecaster) -> Markup:
    rate = load_preset(form.preset).config.learning_rate if form.preset in all_presets() else 1e-4
    options = adapter_options(config, rate, lambda run, size: forecast(run, size or resolution))
    return render("options_card.html", title="What is trained", text="", options=options)


def _precisions(config: RunConfig, resolution: int, forecast: Forecaster) -> Markup:
    options = precision_options(
        config, here().device, capability(), lambda run, size: forecast(run, size or resolution)
    )
    text = "How exactly the base model is kept below the adapter. Fewer bits need less memory."
    return render("options_card.html", title="Precision", text=text, options=options)


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


def _judges(page: Page, config: RunConfig, resolution: int) -> tuple[list[Path], str]:
    """The photos that the run will hold out, and what it is judged by in a sentence; "" without photos."""
    if page.subject is None or not page.photos:
        return [], ""
    numbers = {photo.name: number for number, photo in enumerate(page.photos, 1)}
    datasets = subject_datasets(page.subject.photos_dir, "a photo", resolution)
    sentence = announcement(config, datasets, called=lambda photo: f"photo {numbers[photo.name]}")
    return held_out_files(config, datasets), sentence


def _plan(page: Page, form: Form) -> str:
    """What will happen, with pictures, what it takes, and by which rule."""
    found, need, problem = None, None, ""
    resolution = shown_resolution(page)
    try:
        config, resolution = form.config(), form.resolution_px
        found, need = expected(page, form), forecaster(page, form)(config, resolution)
    except ValueError as error:
        config, problem = shown_config(page), str(error)
    class_word = form.class_word.strip()
    model = config.pretrained_model_name_or_path
    is_unknown = model == "mini" and class_word and class_word not in CLASSES
    subject = page.subject
    held_out, judged_by = _judges(page, config, resolution)
    return str(
        render(
            "plan.html",
            photos=page.photos,
            held_out=held_out,
            judged_by=judged_by,
            prompt=instance_prompt(form.token, class_word) if class_word else "",
            class_word=class_word,
            config=config,
            model=model_title(model),
            resolution=resolution,
            need=need,
            machine=machine_title(),
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
