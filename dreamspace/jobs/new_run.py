"""A new run: the two JSON files that say what is trained on what."""

from pathlib import Path

from dreamspace.config import Preset, RunConfig, apply_settings, save_datasets, subject_datasets
from dreamspace.config import class_prompt as class_prompt_of
from dreamspace.config import instance_prompt as instance_prompt_of
from dreamspace.data.photos import list_photos
from dreamspace.jobs.workspace import Workspace

NEW_SCENES = ("under water", "in the desert")
"""Scenes that validation asks for: few people photograph their subject there."""

SUBJECT_ROWS_PER_CLASS_ROW = 3


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

    With class images, the subject's photos are repeated so that three of four rows show the subject.

    Args:
        num_class_images: how many class images the base model draws into `prior_dir` first; 0 for none.
        prior_dir: their folder; a user's own class images in it count.
        settings: "key=value" each, on top of the preset.

    Raises:
        ValueError: if the photos' folder or a setting is wrong, or `run_dir` holds a run already.
    """
    if (run_dir / "config.json").exists():
        raise ValueError(f"{run_dir} holds a run already. Resume it with --resume, or name another folder.")
    photos = list_photos(photos_dir)
    instance_prompt, class_prompt = instance_prompt_of(token, class_word), class_prompt_of(class_word)
    with_prior = num_class_images > 0 and prior_dir is not None
    scenes = [f"{instance_prompt} {scene}" for scene in NEW_SCENES]
    config = apply_settings(
        preset.config.model_copy(
            update={
                "token": token or None,
                "class_word": class_word,
                "num_class_images": num_class_images if with_prior else 0,
                "validation_prompts": preset.config.validation_prompts or [*scenes, class_prompt],
            }
        ),
        settings or [],
    )
    datasets = subject_datasets(
        photos_dir.resolve(),
        instance_prompt,
        preset.resolution,
        prior_dir.resolve() if with_prior else None,
        class_prompt if with_prior else None,
    )
    if with_prior:
        passes = max(1, round(SUBJECT_ROWS_PER_CLASS_ROW * num_class_images / len(photos)))
        datasets[0] = datasets[0].model_copy(update={"repeats": passes - 1})
    run_dir.mkdir(parents=True, exist_ok=True)
    save_datasets(datasets, run_dir / "multidatabackend.json")
    config.save(run_dir / "config.json")
    return config


def prior_folder(workspace: Workspace, model: str, class_word: str) -> Path:
    """Where class images of a model and class are kept, for all runs that can share them."""
    parts = [Path(model).name, class_word]
    folder = workspace.priors.joinpath(
        *("".join(c if c.isalnum() or c in "-_" else "-" for c in part) for part in parts)
    )
    folder.mkdir(parents=True, exist_ok=True)
    return folder
