"""From the fields of the steps to a run in the queue."""

import shutil
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

from dreamspace.config import (
    Preset,
    Prior,
    RunConfig,
    class_prompt,
    instance_prompt,
    is_hub_id,
    list_presets,
    load_preset,
)
from dreamspace.config.families import DISTILLED_SAMPLING, FLAVOURS, distilled_family
from dreamspace.data.captions import fill_captions
from dreamspace.data.photos import photo_files
from dreamspace.jobs.launcher import submit
from dreamspace.jobs.new_run import NEW_SCENES, prior_folder, write_run
from dreamspace.jobs.secrecy import refuse_tokens
from dreamspace.jobs.workspace import Workspace
from dreamspace.ui.changes import rename
from dreamspace.ui.framing import SIZES_PX
from dreamspace.ui.masks import write_masks
from dreamspace.ui.model_words import NATIVE_PX
from dreamspace.ui.page import Page
from dreamspace.ui.settings_form import changed_config
from dreamspace.ui.subject import Subject

MIN_FREE_BYTES = 500_000_000

DEFAULT_PRESET = "mini"

LARGE = RunConfig(
    mixed_precision="bf16",
    gradient_checkpointing=True,
    train_batch_size=1,
    max_train_steps=800,
    validation_step_interval=200,
    checkpoint_step_interval=200,
)
"""What a model begins with for which there is no preset."""

PRIORS_WITH_IMAGES = ("base", "noise")


@dataclass(frozen=True)
class Form:
    """What the fields of the steps hold; `experts` by setting, as the components give them.

    Attributes:
        class_prompts: what class images show, one a line; empty makes one of the class word.
        resolution: edge of the training pictures in px.
    """

    class_word: str
    token: str
    preset: str
    num_steps: float | None
    prior: Prior
    num_class_images: float | None
    class_prompts: str
    resolution: float | None
    experts: dict[str, Any]

    def config(self) -> RunConfig:
        """The configuration that the form describes.

        Raises:
            ValueError: one sentence for the first thing that is wrong.
        """
        if self.prior not in get_args(Prior):
            raise ValueError(f"There is no prior '{self.prior}'. It is one of {', '.join(get_args(Prior))}.")
        num_class_images = self.num_class_images if self.needs_class_images else 0
        values = {**self.experts, "max_train_steps": self.num_steps, "num_class_images": num_class_images}
        return changed_config(load_preset(self.preset).config, values)

    @property
    def resolution_px(self) -> int:
        """The edge of the training pictures.

        Raises:
            ValueError: if it cannot be trained at.
        """
        size = int(self.resolution or 0)
        if size not in SIZES_PX:
            raise ValueError(
                f"The picture size must be a multiple of {SIZES_PX.step} px, from {SIZES_PX[0]} to "
                f"{SIZES_PX[-1]}, got {size}. Choose one near what the model was made for."
            )
        return size

    @property
    def needs_class_images(self) -> bool:
        """Whether the prior is kept by class images."""
        return self.prior in PRIORS_WITH_IMAGES

    @property
    def prompts(self) -> list[str]:
        """What class images show.

        Raises:
            ValueError: if there is neither a prompt nor a class word.
        """
        lines = [" ".join(line.split()) for line in self.class_prompts.splitlines() if line.strip()]
        return lines or [class_prompt(self.class_word)]

    @property
    def model(self) -> str:
        """The base model, unchecked."""
        return str(self.experts["pretrained_model_name_or_path"]).strip()

    def prior_dir(self, workspace: Workspace) -> Path:
        """The folder of the class images; ValueError if there is neither a prompt nor a class word."""
        return prior_folder(workspace, self.model, self.class_word.strip(), self.prompts)


def start_run(workspace: Workspace, subject: Subject, form: Form) -> Path:
    """Write a new run and submit it; it waits in the queue where another one is at work.

    Returns:
        The run's folder.

    Raises:
        ValueError: if photos, masks or words are missing, a setting is wrong, or the disk is nearly full.
    """
    class_word, token = form.class_word.strip(), form.token.strip()
    class_prompt(class_word)
    refuse_tokens(f"{class_word}\n{token}", "The words for the subject")  # they name the run's folder, too
    config, resolution = form.config(), form.resolution_px
    check_base_model(config.pretrained_model_name_or_path)
    check_disk(workspace)
    check_masks(subject)
    prior_dir = form.prior_dir(workspace) if form.needs_class_images else None
    preset = load_preset(form.preset)
    subject = rename(workspace, subject, class_word, token)
    has_captions = bool(subject.captions())
    if has_captions:
        fill_captions(subject.photos_dir, subject.prompt)
    run_dir = workspace.new_run_dir(f"{token} {class_word}")
    try:
        write_run(
            run_dir,
            replace(preset, config=config, resolution=resolution),
            subject.photos_dir,
            class_word=class_word,
            token=token or None,
            prior=form.prior,
            num_class_images=config.num_class_images,
            prior_dir=prior_dir,
            class_prompts=form.prompts if form.needs_class_images else None,
            masks_dir=write_masks(subject) if subject.use_masks else None,
            has_captions=has_captions,
        )
        submit(run_dir, "train", {})
    except ValueError:
        shutil.rmtree(run_dir)
        raise
    return run_dir


def class_images(page: Page, form: Form) -> list[Path]:
    """The class images that are there already, in the order in which they are taken."""
    if not form.class_word.strip() or not form.needs_class_images:
        return []
    return photo_files(form.prior_dir(page.workspace))


def check_masks(subject: Subject) -> None:
    """Refuse to train with masks where a photo has none.

    Raises:
        ValueError: it names the photos by their numbers.
    """
    unmasked = subject.unmasked() if subject.use_masks else []
    if unmasked:
        names = ", ".join(map(str, unmasked))
        is_one = len(unmasked) == 1
        raise ValueError(
            f"{'Photo' if is_one else 'Photos'} {names} {'has' if is_one else 'have'} no mask yet. "
            "Mask the subject in step 2, or turn 'Train with masks' off there."
        )


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
        ValueError: unless it is the embedded one, or a Hub id that is no folder here.
    """
    if name != "mini" and (not is_hub_id(name) or Path(name).exists()):
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


def shown_config(page: Page) -> RunConfig:
    """What the form is filled with: the chosen preset's settings, else the run's, else the usual preset's."""
    if page.run is None or page.view.preset:
        return with_model(preset_of(page).config, page.view.model)
    config = page.run.config
    # Prompts that were made from the words are left empty, so that they are made anew from other words.
    is_made = config.validation_prompts == made_prompts(config)
    return config.model_copy(update={"validation_prompts": []}) if is_made else config


def shown_resolution(page: Page) -> int:
    """The edge of the training pictures, in px, that all steps show."""
    if page.view.resolution in SIZES_PX:
        return page.view.resolution
    if page.run is not None and not page.view.preset:
        return page.run.resolution
    return native_resolution(page.view.model) or preset_of(page).resolution


@cache
def all_presets() -> dict[str, Preset]:
    """The presets by name, mini first, those of a model by their GPU's memory.

    They come with Dreamspace, and do not change while it runs.
    """
    names = sorted(
        list_presets(), key=lambda name: (name != DEFAULT_PRESET, name.split("-")[0], gpu_gb(name))
    )
    return {name: load_preset(name) for name in names}


def gpu_gb(preset: str) -> int:
    """The GPU memory that a preset is made for, by its name, such as "sdxl-24gb"; 0 for one without a GPU."""
    size = preset.rpartition("-")[2].removesuffix("gb")
    return int(size) if size.isdecimal() else 0


def preset_of(page: Page) -> Preset:
    """The preset that was chosen, or that a run most likely came from: the first with its base model."""
    presets = all_presets()
    if page.view.preset in presets:
        return presets[page.view.preset]
    usual = presets[DEFAULT_PRESET]
    model = page.run.config.pretrained_model_name_or_path if page.run else ""
    of_model = (p for p in presets.values() if p.config.pretrained_model_name_or_path == model)
    return next(of_model, usual)


def native_resolution(model: str) -> int | None:
    """The size in px that a model was made for, by its family and flavour; None for a preset's own."""
    family, _, flavour = model.partition("/")
    if flavour not in FLAVOURS.get(family, {}):
        return None
    return NATIVE_PX.get(model, NATIVE_PX.get(family, 1024))


def with_model(config: RunConfig, model: str) -> RunConfig:
    """A configuration with a model in place of its own.

    Args:
        model: "sdxl/base-1.0", a family and a flavour; its own stays where there is no such model.
    """
    family, _, flavour = model.partition("/")
    if flavour not in FLAVOURS.get(family, {}):
        return config
    if config.pretrained_model_name_or_path == "mini":
        config = LARGE  # what mini learns with, no large model does
    changes = {
        "model_family": family,
        "model_flavour": flavour,
        "pretrained_model_name_or_path": FLAVOURS[family][flavour],
    }
    if distilled_family(FLAVOURS[family][flavour]):
        names = ("validation_num_inference_steps", "validation_guidance")
        changes |= dict(zip(names, DISTILLED_SAMPLING[family], strict=True))
    return config.model_copy(update=changes)
