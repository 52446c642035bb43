"""Our pair becomes one that SimpleTuner accepts, with a finding for whatever cannot be said there."""

from pathlib import Path
from typing import Any

from dreamspace.config.dataset import DatasetConfig
from dreamspace.config.datasets import subject_prompt
from dreamspace.config.findings import Finding
from dreamspace.config.lycoris import LycorisConfig
from dreamspace.config.prompt_library import library_prompts
from dreamspace.config.run import RunConfig
from dreamspace.config.simpletuner_keys import SHARED_RUN_KEYS
from dreamspace.data.held_out import held_out_files
from dreamspace.files import write_json
from dreamspace.mini import MODEL_FOLDER
from dreamspace.simpletuner.exported_datasets import export_dataset, text_cache
from dreamspace.simpletuner.optimizers import EXPORTED, NUMBERS, THEIR_OPTIMIZERS
from dreamspace.simpletuner.reading import Notes
from dreamspace.simpletuner.timesteps import export_timesteps
from dreamspace.simpletuner.validation import NEGATIVE_PROMPT

NEARLY_ZERO = 1e-6
"""A scheduled_sampling_prob_start that SimpleTuner does not mistake for one that is absent."""


def export_simpletuner(config: RunConfig, datasets: list[DatasetConfig], out_dir: Path) -> list[Finding]:
    """Write config.json and multidatabackend.json for SimpleTuner into a folder, which is made if missing.

    Further validation prompts go into a file of their own, user_prompt_library.json, and so does what LyCORIS
    builds, lycoris_config.json.

    Returns:
        What SimpleTuner cannot be told, and what it will do in its place.

    Raises:
        ValueError: if the folder holds a config.json already, or no dataset shows the subject.
    """
    out_dir = Path(out_dir).resolve()
    if (out_dir / "config.json").exists():
        raise ValueError(f"{out_dir} holds a config.json already. Name another folder.")
    settings, findings = export_settings(config, datasets)
    entries = []
    for dataset in datasets:
        entry, found = export_dataset(dataset, datasets)
        entries.append(entry)
        findings += found
    if not any(d.dataset_type == "text_embeds" and d.default and not d.disabled for d in datasets):
        entries.append(text_cache({dataset.id for dataset in datasets}))
    settings["data_backend_config"] = str(out_dir / "multidatabackend.json")
    settings["output_dir"] = str(out_dir / "output")
    prompts = {f"prompt_{number}": text for number, text in enumerate(config.validation_prompts, start=1)}
    if config.validation_prompt_library:
        prompts |= library_prompts(config.validation_prompt_library, config.token, config.class_word)
    if prompts:
        library = out_dir / "user_prompt_library.json"
        write_json(library, prompts)
        settings["user_prompt_library"] = str(library)
    if "lycoris_config" in settings:
        lycoris = out_dir / "lycoris_config.json"
        write_json(lycoris, settings["lycoris_config"])
        settings["lycoris_config"] = str(lycoris)
    write_json(out_dir / "multidatabackend.json", entries)
    write_json(out_dir / "config.json", settings)
    return findings


def export_settings(config: RunConfig, datasets: list[DatasetConfig]) -> tuple[dict[str, Any], list[Finding]]:
    """The settings in SimpleTuner's words, without the files that they name, and what is lost.

    Raises:
        ValueError: if nothing says how to call the subject.
    """
    notes = Notes("config.json")
    written = config.model_dump(include=set(SHARED_RUN_KEYS))
    if config.pretrained_model_name_or_path == "mini":
        written["pretrained_model_name_or_path"] = str(MODEL_FOLDER)
        notes.say("differs", "pretrained_model_name_or_path", "'mini' is written as its folder.")
    written |= {
        "num_train_epochs": 0,  # SimpleTuner refuses max_train_steps beside any other
        "grad_clip_method": "norm",
        "offset_noise": config.noise_offset > 0,
        "noise_offset_probability": 1.0,
        "report_to": "none",
        "validation_prompt_library": None,  # its prompts go into the file of user_prompt_library
    }
    written |= _lycoris(config, notes)
    written |= _optimizer(config, notes)
    written |= _schedule(config, notes)
    written |= export_timesteps(config, notes)
    written |= _rollout(config, notes)
    written |= _validation(config, datasets, notes)
    if config.snr_gamma is not None and not config.snr_gamma.is_integer():
        written["snr_gamma"] = round(config.snr_gamma)
        notes.say(
            "differs", "snr_gamma", f"SimpleTuner takes whole numbers: {written['snr_gamma']} is written."
        )
    _lost(config, datasets, notes)
    return {key: _value(value) for key, value in written.items() if value not in (None, "")}, notes.findings


def _lycoris(config: RunConfig, notes: Notes) -> dict[str, Any]:
    """What LyCORIS builds, in its own words, and those of its settings alone that are not usual."""
    if config.lora_type != "lycoris":
        return {"lycoris_config": None}
    settings = config.lycoris_config or LycorisConfig()
    usual = settings.model_dump(include={"algo", "multiplier", "linear_dim", "linear_alpha"})
    if settings.apply_preset.target_module is None and settings.apply_preset.target_name is None:
        message = (
            "it names no target_module: SimpleTuner then adapts every layer that LyCORIS knows, here it is "
            "those of the family's LoRA."
        )
        notes.say("differs", "lycoris_config", message)
    return {"lycoris_config": usual | settings.model_dump(exclude_defaults=True, exclude_none=True)}


def _value(value: Any) -> Any:
    """A value as SimpleTuner's parser takes it: it drops a false, and reads no 1.0 where it wants 1."""
    if value is False:
        return 0
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _optimizer(config: RunConfig, notes: Notes) -> dict[str, Any]:
    """The optimizer and its numbers, which SimpleTuner reads from optimizer_config or from two betas."""
    name = EXPORTED[config.optimizer]
    theirs = THEIR_OPTIMIZERS[name]
    settings = config.model_dump()
    changed = {key: settings[key] for key, value in theirs.numbers.items() if settings[key] != value}
    written: dict[str, Any] = dict.fromkeys(theirs.numbers)  # its own keys are read under DeepSpeed alone
    written["optimizer"] = name
    if theirs.note:
        notes.say("differs", "optimizer", f"'{name}' is written, which is not quite '{config.optimizer}'.")
    options = [f"{key}={changed[ours]!r}" for key, ours in NUMBERS.items() if ours in changed]
    betas = [key for key in changed if "beta" in key]
    if options:
        written["optimizer_config"] = ",".join(options)
    if betas and options:
        notes.say(
            "differs", betas[0], "SimpleTuner takes no betas beside optimizer_config: its own are left."
        )
    elif betas:
        written |= {"optimizer_beta1": config.adam_beta1, "optimizer_beta2": config.adam_beta2}
    return written


def _schedule(config: RunConfig, notes: Notes) -> dict[str, Any]:
    name = config.lr_scheduler
    if name == "piecewise_constant":
        notes.say("differs", "lr_scheduler", f"SimpleTuner has no '{name}': 'constant' is written.")
        return {"lr_scheduler": "constant", "lr_warmup_steps": 0}
    if name == "polynomial":
        return {"lr_end": 1e-7}
    if name not in ("cosine", "cosine_with_restarts"):
        return {}
    if name == "cosine_with_restarts":
        notes.say("differs", "lr_scheduler", "SimpleTuner's restarts are broken: one fall is written.")
    if config.lr_warmup_steps:
        notes.say("differs", "lr_warmup_steps", "SimpleTuner's 'cosine' has no warm-up: it is left out.")
    # SimpleTuner's cosine takes lr_warmup_steps for its half period and falls to lr_end.
    return {"lr_scheduler": "cosine", "lr_warmup_steps": config.max_train_steps, "lr_end": 0.0}


def _rollout(config: RunConfig, notes: Notes) -> dict[str, Any]:
    if config.scheduled_sampling_max_step_offset == 0:
        return {}
    if config.scheduled_sampling_target != "original_noise":
        message = "SimpleTuner trains a rolled-out row towards the noise that was drawn."
        notes.say("differs", "scheduled_sampling_target", message)
    start, end = config.scheduled_sampling_prob_start, config.scheduled_sampling_prob_end
    probability = config.scheduled_sampling_probability
    if start is None:
        start = 0.0 if config.scheduled_sampling_ramp_steps else probability
    return {
        "scheduled_sampling_prob_start": start or NEARLY_ZERO,
        "scheduled_sampling_prob_end": probability if end is None else end,
    }


def _validation(config: RunConfig, datasets: list[DatasetConfig], notes: Notes) -> dict[str, Any]:
    """What a null stands for is written out, since SimpleTuner's own defaults are others."""
    written: dict[str, Any] = {}
    if config.validation_disable:
        return written
    if config.validation_prompt is None:
        written["validation_prompt"] = subject_prompt(config, datasets)
    if config.validation_seed is None:
        written["validation_seed"] = config.seed
    if config.validation_resolution is None:
        written["validation_resolution"] = _training_size(datasets)
    if not config.validation_negative_prompt:
        message = f"SimpleTuner drops an empty text and takes '{NEGATIVE_PROMPT}': ',' is written."
        notes.say("differs", "validation_negative_prompt", message)
        written["validation_negative_prompt"] = ","
    written["validation_preview"] = config.shows_previews
    if config.shows_previews and config.webhook_config is None:
        notes.say(
            "differs", "validation_preview", "SimpleTuner sends previews to a webhook: add webhook_config."
        )
    if config.shows_previews and config.validation_preview_model is not None:
        message = "SimpleTuner takes the tiny decoder that it knows for the family."
        notes.say("differs", "validation_preview_model", message)
    if config.num_validation_images > 1:
        message = "SimpleTuner draws all of them from the first seed's noise."
        notes.say("differs", "num_validation_images", message)
    if config.validation_epoch_interval is not None and not config.validation_epoch_interval.is_integer():
        written["validation_epoch_interval"] = max(1, round(config.validation_epoch_interval))
        message = f"SimpleTuner counts whole epochs: {written['validation_epoch_interval']} is written."
        notes.say("differs", "validation_epoch_interval", message)
    return written


def _training_size(datasets: list[DatasetConfig]) -> str:
    """The edge in px of the subject's largest training images."""
    subjects = [d for d in datasets if d.is_trained and not d.is_regularisation_data]
    return str(
        int(
            max(
                (d.resolution * 1e6) ** 0.5 if d.resolution_type == "area" else d.resolution for d in subjects
            )
        )
    )


def _lost(config: RunConfig, datasets: list[DatasetConfig], notes: Notes) -> None:
    """What SimpleTuner has no word for."""
    has_masks = any(dataset.conditioning_data and not dataset.disabled for dataset in datasets)
    has_noise_prior = any(d.is_trained and d.regularisation_target == "noise" for d in datasets)
    lost = {
        "seed": (config.seed == 0, "SimpleTuner takes 0 for a new seed in each run: set another."),
        "debiased_estimation": (config.debiased_estimation, "SimpleTuner has no such weighting."),
        "masked_loss_normalization": (
            has_masks and config.masked_loss_normalization == "area",
            "SimpleTuner divides by the whole picture, so that a small subject counts for less.",
        ),
        "masked_background_weight": (
            has_masks and config.masked_background_weight > 0,
            "SimpleTuner leaves the background out of a masked loss.",
        ),
        "masked_prior_weight": (
            has_masks and config.masked_prior_weight > 0,
            "SimpleTuner does not keep the background as it was.",
        ),
        "prior_loss_weight": (
            has_noise_prior and config.prior_loss_weight != 1,
            "SimpleTuner weighs all datasets alike.",
        ),
        "held_out_photos": (
            bool(held_out_files(config, datasets)),
            "SimpleTuner trains on all photos: move those that are to be held out into an 'eval' dataset.",
        ),
        "num_class_images": (
            config.num_class_images > 0,
            "SimpleTuner draws no class images: their folder must be full before it starts.",
        ),
        "validation_guidance": (
            config.validation_guidance < 1 and not config.validation_disable,
            "SimpleTuner wants 1 or more: set it.",
        ),
    }
    for key, (applies, message) in lost.items():
        if applies:
            notes.say("differs", key, message)
