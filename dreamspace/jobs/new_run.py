"""A new run: the two JSON files that say what is trained on what."""

import hashlib
import math
import os
import re
from pathlib import Path

from dreamspace.config import (
    DatasetConfig,
    Preset,
    Prior,
    RunConfig,
    apply_settings,
    check_datasets,
    load_datasets,
    save_datasets,
    subject_datasets,
)
from dreamspace.config import class_prompt as class_prompt_of
from dreamspace.config import instance_prompt as instance_prompt_of
from dreamspace.config.prompt_library import LIBRARIES, library_prompts, num_library_prompts
from dreamspace.data.held_out import held_out_files
from dreamspace.data.photos import list_photos
from dreamspace.data.plan import balancing_repeats
from dreamspace.data.samples import check_files
from dreamspace.jobs.secrecy import refuse_tokens
from dreamspace.jobs.untrained import clear_attempt, is_untrained
from dreamspace.jobs.webhook import read_targets
from dreamspace.jobs.workspace import Workspace, job_status
from dreamspace.run_folder import WEIGHTS_NAME

NEW_SCENES = ("under water", "in the desert")
"""Scenes that validation asks for: few people photograph their subject there."""


def num_prompts(config: RunConfig) -> int:
    """That validation draws in a run of this configuration, which is given some where it names none."""
    made = (*NEW_SCENES, "the class")
    return 1 + len(config.validation_prompts or made) + num_library_prompts(config)


def write_run(
    run_dir: Path,
    preset: Preset,
    photos_dir: Path,
    *,
    class_word: str,
    token: str | None = None,
    prior: Prior | None = None,
    num_class_images: int = 0,
    prior_dir: Path | None = None,
    class_prompts: list[str] | None = None,
    masks_dir: Path | None = None,
    has_captions: bool = False,
    settings: list[str] | None = None,
) -> RunConfig:
    """Write `config.json` and `multidatabackend.json` of a new run into `run_dir`; returns the configuration.

    With a prior, whichever is fewer of photos and class images is repeated, so that about every second row
    shows the subject; and all is repeated until an epoch is a number of full steps.

    Args:
        prior: None takes `base` where there are class images, else `none`.
        num_class_images: how many class images are trained with, unless a setting says it; for the priors
            that need some.
        prior_dir: their folder, which the base model fills; a user's own photos in it come first.
        class_prompts: what class images show; None makes one of the class word.
        masks_dir: the masks of the photos; None learns the whole photos.
        has_captions: see `subject_datasets`.
        settings: "key=value" each, on top of the preset.

    Raises:
        ValueError: if the photos' folder or a setting is wrong or holds a token, or `run_dir` holds a run
            already, of which something was trained or is at work.
    """
    _refuse_existing(run_dir)
    photos = list_photos(photos_dir)
    given = {"token": token or None, "class_word": class_word, "num_class_images": num_class_images}
    config = apply_settings(preset.config.model_copy(update=given), settings or [])
    instance_prompt = instance_prompt_of(config.token, config.class_word)
    class_prompt = class_prompt_of(config.class_word)
    # The settings once more, because they may name the words as well as the prompts that are made of them.
    scenes = [f"{instance_prompt} {scene}" for scene in NEW_SCENES]
    given["validation_prompts"] = preset.config.validation_prompts or [*scenes, class_prompt]
    config = apply_settings(preset.config.model_copy(update=given), settings or [])
    prior = prior or ("base" if config.num_class_images else "none")
    needs_images = prior in ("noise", "base")
    if needs_images and not config.num_class_images:
        raise ValueError(
            f"The prior '{prior}' needs class images, and their number is 0. Give it, or 'none'."
        )
    if not needs_images and config.num_class_images:
        raise ValueError(
            f"The prior '{prior}' takes no class images, and num_class_images is {config.num_class_images}. "
            "Set it to 0, or take the prior 'base' or 'noise'."
        )
    assert prior_dir is not None or not needs_images, "class images need a folder"
    folder = {"none": None, "image-free": photos_dir}.get(prior, prior_dir)
    datasets = subject_datasets(
        photos_dir.resolve(),
        instance_prompt,
        preset.resolution,
        folder and folder.resolve(),
        (class_prompts or class_prompt) if folder else None,
        regularisation_target="noise" if prior == "noise" else "base",
        masks_dir=masks_dir and masks_dir.resolve(),
        has_captions=has_captions,
    )
    num_trained = len(photos) - len(held_out_files(config, datasets))
    num_prior = {"none": 0, "image-free": num_trained}.get(prior, config.num_class_images)
    num_step_rows = config.train_batch_size * config.gradient_accumulation_steps
    datasets = _repeated(datasets, num_trained, num_prior, num_step_rows)
    is_to_be_made = needs_images and not prior_dir.is_dir()
    return _write(config, datasets, run_dir, prior_dir if is_to_be_made else None)


def _repeated(
    datasets: list[DatasetConfig], num_photos: int, num_prior: int, num_step_rows: int
) -> list[DatasetConfig]:
    """Repeat the fewer of photos and prior, and all until an epoch holds only full steps."""
    counts = {"subject": num_photos, "prior": num_prior}
    passes = {"subject": 1 + balancing_repeats(num_photos, num_prior)}
    if num_prior:
        passes["prior"] = 1 + balancing_repeats(num_prior, num_photos)
    num_rows = sum(counts[name] * passes[name] for name in passes)
    rounds = num_step_rows // math.gcd(num_rows, num_step_rows)
    repeated = []
    for dataset in datasets:
        changes = {"repeats": rounds * passes[dataset.id] - 1} if dataset.id in passes else {}
        if dataset.id == "prior":
            # The folder is shared: an earlier run may have had more images drawn.
            changes["max_num_samples"] = num_prior
        repeated.append(dataset.model_copy(update=changes))
    return repeated


def copy_run(run_dir: Path, config_file: Path, datasets_file: Path, settings: list[str]) -> RunConfig:
    """Write a new run into `run_dir` from the two files of another; returns the configuration.

    Folders become absolute, so that the run can be resumed from anywhere.

    Args:
        settings: "key=value" each, on top of the file's.

    Raises:
        ValueError: if a file or a setting is wrong or holds a token, or `run_dir` holds a run already.
    """
    _refuse_existing(run_dir)
    config = apply_settings(RunConfig.load(config_file), settings)
    return _write(config, [_absolute(dataset) for dataset in load_datasets(datasets_file)], run_dir)


def extend_run(run_dir: Path, num_steps: int, restart_schedule: bool) -> None:
    """Let a run that is not at work go on to more steps when it is resumed.

    Args:
        restart_schedule: the learning-rate schedule begins anew where the run was to end; else it is that of
            a run of `num_steps` from its beginning.

    Raises:
        ValueError: if the run is at work, or has as many steps already.
    """
    config = RunConfig.load(run_dir / "config.json")
    if not job_status(run_dir).is_final:
        raise ValueError(f"The run in {run_dir} is at work. Stop it first, then give it more steps.")
    if num_steps <= config.max_train_steps:
        raise ValueError(
            f"--steps must be above the {config.max_train_steps} steps that the run has, got {num_steps}."
        )
    settings = [f"max_train_steps={num_steps}"]
    if restart_schedule:
        settings.append(f"lr_restart_step={config.max_train_steps}")
    apply_settings(config, settings).save(run_dir / "config.json")


def write_pair(run_dir: Path, config: RunConfig, datasets: list[DatasetConfig]) -> RunConfig:
    """Write a new run into `run_dir` from what other files than ours said; returns the configuration.

    Raises:
        ValueError: as `copy_run`.
    """
    _refuse_existing(run_dir)
    check_datasets(datasets)
    return _write(config, [_absolute(dataset) for dataset in datasets], run_dir)


def _absolute(dataset: DatasetConfig) -> DatasetConfig:
    """The dataset with full paths for all its folders."""
    folders = {
        name: folder.resolve()
        for name in ("instance_data_dir", "cache_dir_vae", "cache_dir")
        if (folder := getattr(dataset, name)) is not None
    }
    if dataset.dataset_name and Path(dataset.dataset_name).is_dir():
        folders["dataset_name"] = str(Path(dataset.dataset_name).resolve())
    return dataset.model_copy(update=folders)


def _refuse_existing(run_dir: Path) -> None:
    """Raise ValueError if the folder holds a run, unless nothing was trained in it and no job is at work."""
    try:
        holds_run = (run_dir / "config.json").exists() and not is_untrained(run_dir)
    except OSError as error:  # such as a name that is too long
        raise ValueError(
            f"The folder {run_dir} cannot be used: {error.strerror}. Choose another one."
        ) from None
    if holds_run:
        raise ValueError(f"{run_dir} holds a run already. Resume it with --resume, or name another folder.")


def _existing_adapter(path: Path) -> Path:
    """The full path of the file of an adapter, given by it or by its folder.

    Raises:
        ValueError: if there is none.
    """
    file = path / WEIGHTS_NAME if path.is_dir() else path
    if file.suffix != ".safetensors" or not file.is_file():
        raise ValueError(
            f"There is no adapter in {path}. Name the folder that holds {WEIGHTS_NAME}, or a .safetensors "
            "file."
        )
    return file.resolve()


def _checked_files(config: RunConfig) -> dict[str, str]:
    """The full paths of the files of validation images that a configuration names.

    Raises:
        ValueError: if one is missing or holds something else.
    """
    paths = {}
    if config.webhook_config is not None:
        read_targets(Path(config.webhook_config))
        paths["webhook_config"] = str(Path(config.webhook_config).resolve())
    library = config.validation_prompt_library
    if library is not None:
        library_prompts(library, config.token, config.class_word)
        if library not in LIBRARIES:
            paths["validation_prompt_library"] = str(Path(library).resolve())
    return paths


def _write(
    config: RunConfig, datasets: list[DatasetConfig], run_dir: Path, prior_dir: Path | None = None
) -> RunConfig:
    model = absolute_model(config.pretrained_model_name_or_path)
    config = config.model_copy(update={"pretrained_model_name_or_path": model})
    if config.init_lora is not None:
        config = config.model_copy(update={"init_lora": str(_existing_adapter(Path(config.init_lora)))})
    config = config.model_copy(update=_checked_files(config))
    for settings in (config, *datasets):
        refuse_tokens(settings.model_dump_json(), f"The settings of {run_dir.name}")
    drawn_later = {d.id for d in datasets if d.is_regularisation_data and config.num_class_images}
    check_files(datasets, drawn_later)
    for folder in (prior_dir, run_dir):
        if folder is not None:
            writable_folder(folder)
    if is_untrained(run_dir):
        clear_attempt(run_dir)
    save_datasets(datasets, run_dir / "multidatabackend.json")
    config.save(run_dir / "config.json")  # last: a folder with this file holds a run
    return config


def writable_folder(folder: Path) -> Path:
    """The folder's full path; it is made if it is missing.

    Raises:
        ValueError: if it cannot be made, or may not be written to.
    """
    folder = folder.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"The folder {folder} cannot be made: {error.strerror}. Choose another one."
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(
            f"The folder {folder} may not be written to. Change its permissions, or choose another one."
        )
    return folder


def absolute_model(name: str) -> str:
    """A base model that is a folder by its full path, because the job may run elsewhere; else its name."""
    folder = Path(name).expanduser()
    return str(folder.resolve()) if name != "mini" and folder.is_dir() else name


def prior_folder(
    workspace: Workspace, model: str, class_word: str, class_prompts: list[str] | None = None
) -> Path:
    """Where class images of a model and class are kept, for all runs that can share them.

    A Hub id `owner/name` becomes `owner--name`, which is no other's; a model's folder is told from others of
    its name by its path, and prompts of the user's own from the one made of the class word.
    """
    path = Path(absolute_model(model))
    if path.is_absolute():
        model = f"{path.name}-{_short_hash(str(path))}"
    model = re.sub(r"[^\w.-]", "-", model.replace("/", "--"))
    name = re.sub(r"[^\w-]", "-", class_word)
    if class_prompts and class_prompts != [class_prompt_of(class_word)]:
        name = f"{name}-{_short_hash(repr(class_prompts))}"
    return workspace.priors / model / name


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
