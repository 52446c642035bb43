"""A new run: the two JSON files that say what is trained on what."""

import hashlib
import os
import re
from pathlib import Path

from dreamspace.config import (
    DatasetConfig,
    Preset,
    RunConfig,
    apply_settings,
    load_datasets,
    save_datasets,
    subject_datasets,
)
from dreamspace.config import class_prompt as class_prompt_of
from dreamspace.config import instance_prompt as instance_prompt_of
from dreamspace.data.photos import list_photos
from dreamspace.jobs.secrecy import refuse_tokens
from dreamspace.jobs.workspace import Workspace

NEW_SCENES = ("under water", "in the desert")
"""Scenes that validation asks for: few people photograph their subject there."""


def write_run(
    run_dir: Path,
    preset: Preset,
    photos_dir: Path,
    *,
    class_word: str,
    token: str | None = None,
    num_class_images: int = 0,
    prior_dir: Path | None = None,
    settings: list[str] | None = None,
) -> RunConfig:
    """Write `config.json` and `multidatabackend.json` of a new run into `run_dir`; returns the configuration.

    With class images, whichever are fewer are repeated, so that about every second row shows the subject.

    Args:
        num_class_images: how many class images are trained with, unless a setting says it; 0 for none.
        prior_dir: their folder, which the base model fills; a user's own photos in it come first.
        settings: "key=value" each, on top of the preset.

    Raises:
        ValueError: if the photos' folder or a setting is wrong or holds a token, or `run_dir` holds a run
            already.
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
    with_prior = config.num_class_images > 0
    assert prior_dir is not None or not with_prior, "class images need a folder"
    datasets = subject_datasets(
        photos_dir.resolve(),
        instance_prompt,
        preset.resolution,
        prior_dir.resolve() if with_prior else None,
        class_prompt if with_prior else None,
    )
    if with_prior:
        counts = (len(photos), config.num_class_images)
        fewer, more = sorted((0, 1), key=counts.__getitem__)
        repeats = round(counts[more] / counts[fewer]) - 1
        datasets[fewer] = datasets[fewer].model_copy(update={"repeats": repeats})
        # The folder is shared: an earlier run may have had more images drawn.
        datasets[1] = datasets[1].model_copy(update={"max_num_samples": config.num_class_images})
    return _write(config, datasets, run_dir, prior_dir if with_prior else None)


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
    datasets = [
        dataset.model_copy(
            update={
                "instance_data_dir": dataset.instance_data_dir.resolve(),
                "cache_dir_vae": dataset.cache_dir_vae and dataset.cache_dir_vae.resolve(),
            }
        )
        for dataset in load_datasets(datasets_file)
    ]
    return _write(config, datasets, run_dir)


def _refuse_existing(run_dir: Path) -> None:
    try:
        holds_run = (run_dir / "config.json").exists()
    except OSError as error:  # such as a name that is too long
        raise ValueError(
            f"The folder {run_dir} cannot be used: {error.strerror}. Choose another one."
        ) from None
    if holds_run:
        raise ValueError(f"{run_dir} holds a run already. Resume it with --resume, or name another folder.")


def _write(
    config: RunConfig, datasets: list[DatasetConfig], run_dir: Path, prior_dir: Path | None = None
) -> RunConfig:
    model = absolute_model(config.pretrained_model_name_or_path)
    config = config.model_copy(update={"pretrained_model_name_or_path": model})
    for settings in (config, *datasets):
        refuse_tokens(settings.model_dump_json(), f"The settings of {run_dir.name}")
    for folder in (prior_dir, run_dir):
        if folder is not None:
            writable_folder(folder)
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


def prior_folder(workspace: Workspace, model: str, class_word: str) -> Path:
    """Where class images of a model and class are kept, for all runs that can share them.

    A Hub id `owner/name` becomes `owner--name`, which is no other's; a model's folder is told from others of
    its name by its path.
    """
    path = Path(absolute_model(model))
    if path.is_absolute():
        model = f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    model = re.sub(r"[^\w.-]", "-", model.replace("/", "--"))
    return workspace.priors / model / re.sub(r"[^\w-]", "-", class_word)
