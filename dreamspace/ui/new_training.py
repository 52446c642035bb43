"""From the fields of steps 1 and 2 to a run in the queue."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dreamspace.config import RunConfig, class_prompt, instance_prompt, is_hub_id, list_presets, load_preset
from dreamspace.jobs.launcher import submit
from dreamspace.jobs.new_run import NEW_SCENES, prior_folder, write_run
from dreamspace.jobs.secrecy import refuse_tokens
from dreamspace.jobs.workspace import Workspace
from dreamspace.ui.settings_form import changed_config

MIN_FREE_BYTES = 500_000_000


@dataclass(frozen=True)
class Form:
    """What the fields of steps 1 and 2 hold; `experts` by setting, as the components give them."""

    class_word: str
    token: str
    preset: str
    num_steps: float | None
    with_prior: bool
    num_class_images: float | None
    experts: dict[str, Any]

    def config(self) -> RunConfig:
        """The configuration that the form describes.

        Raises:
            ValueError: one sentence for the first thing that is wrong.
        """
        num_class_images = self.num_class_images if self.with_prior else 0
        values = {**self.experts, "max_train_steps": self.num_steps, "num_class_images": num_class_images}
        return changed_config(load_preset(self.preset).config, values)


def start_run(workspace: Workspace, photos_dir: Path, form: Form) -> Path:
    """Write a new run and submit it; it waits in the queue where another one is at work.

    Returns:
        The run's folder.

    Raises:
        ValueError: if photos or words are missing, a setting is wrong, or the disk is nearly full.
    """
    class_word, token = form.class_word.strip(), form.token.strip()
    class_prompt(class_word)
    refuse_tokens(f"{class_word}\n{token}", "The words for the subject")  # they name the run's folder, too
    config = form.config()
    check_base_model(config.pretrained_model_name_or_path)
    check_disk(workspace)
    prior_dir = None
    if config.num_class_images:
        prior_dir = prior_folder(workspace, config.pretrained_model_name_or_path, class_word)
    run_dir = workspace.new_run_dir(f"{token} {class_word}")
    try:
        write_run(
            run_dir,
            replace(load_preset(form.preset), config=config),
            photos_dir,
            class_word=class_word,
            token=token or None,
            num_class_images=config.num_class_images,
            prior_dir=prior_dir,
        )
        submit(run_dir, "train", {})
    except ValueError:
        shutil.rmtree(run_dir)
        raise
    return run_dir


def resume_run(run_dir: Path) -> None:
    """Let a run that has ended go on from its newest checkpoint.

    Raises:
        ValueError: if it has not ended.
    """
    submit(run_dir, "train", {"resume": True})


def start_job(workspace: Workspace, name: str, kind: str, arguments: dict[str, Any], **options: Any) -> Path:
    """Submit a job in a new folder named after `name`; returns the folder.

    Args:
        options: of `dreamspace.jobs.launcher.submit`.

    Raises:
        ValueError: if it cannot be submitted; no folder is left then.
    """
    job_dir = workspace.new_job_dir(name)
    try:
        submit(job_dir, kind, arguments, **options)
    except ValueError:
        shutil.rmtree(job_dir)
        raise
    return job_dir


def check_base_model(name: str) -> None:
    """Refuse a base model that is a path: what a browser says must not open folders of this machine.

    Raises:
        ValueError: unless it is a preset's, or a Hub id that is no folder here.
    """
    presets = {load_preset(preset).config.pretrained_model_name_or_path for preset in list_presets()}
    if name not in presets and (not is_hub_id(name) or Path(name).exists()):
        raise ValueError(
            f"In the app the base model is 'mini' or a Hub id such as 'owner/name', got '{name}'. A folder "
            "can be named on the command line, by --set pretrained_model_name_or_path=FOLDER."
        )


def check_disk(workspace: Workspace) -> None:
    """Refuse to begin what a nearly full disk would end.

    Raises:
        ValueError: with what is free and what is needed.
    """
    free_bytes = shutil.disk_usage(workspace.root).free
    if free_bytes < MIN_FREE_BYTES:
        raise ValueError(
            f"The disk has {free_bytes / 1e6:.0f} MB free, and a run needs {MIN_FREE_BYTES / 1e6:.0f} MB for "
            "its images and checkpoints. Free some space, or delete runs that you no longer need."
        )


def made_prompts(config: RunConfig) -> list[str] | None:
    """The further validation prompts that `write_run` makes from a run's words; None without words."""
    if not config.class_word:
        return None
    prompt = instance_prompt(config.token, config.class_word)
    return [*(f"{prompt} {scene}" for scene in NEW_SCENES), class_prompt(config.class_word)]
