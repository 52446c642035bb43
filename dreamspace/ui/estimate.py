"""How long a run will take, by a rule that fits into one sentence and is shown with the figure."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from dreamspace.config import RunConfig
from dreamspace.jobs.new_run import NEW_SCENES
from dreamspace.ui.history import History

# Measured with mini on two CPU cores; a machine that has trained before is judged by that.
SECONDS_PER_ROW = 0.03
SECONDS_PER_DENOISING_STEP = 0.035
LOAD_AND_SAVE_SECONDS = 15.0


@dataclass(frozen=True)
class Estimate:
    """How long a run takes, and why.

    Attributes:
        is_measured: whether the steps' speed is that of an earlier run on this machine.
    """

    seconds: float
    num_steps: int
    seconds_per_step: float
    num_images: int
    seconds_per_image: float
    is_measured: bool


def measured_seconds_per_row(runs: Iterable[tuple[RunConfig, History]], config: RunConfig) -> float | None:
    """Seconds of one row of a step in the newest run with the same base model; None without one."""
    for past, history in runs:
        speed = history.progress["steps_per_second"] if history.progress else None
        if speed and past.pretrained_model_name_or_path == config.pretrained_model_name_or_path:
            return 1 / speed / rows_per_step(past)
    return None


def rows_per_step(config: RunConfig) -> int:
    """Images that one step learns from, on one device."""
    return config.train_batch_size * config.gradient_accumulation_steps


def estimate(
    config: RunConfig, seconds_per_row: float | None, num_ready_class_images: int = 0
) -> Estimate | None:
    """The time of a run with this configuration; None if nothing is known about its base model.

    Args:
        seconds_per_row: of an earlier run; None takes the figure for mini.
        num_ready_class_images: that another run has drawn, and that this one shares.
    """
    if seconds_per_row is None and config.pretrained_model_name_or_path != "mini":
        return None
    per_step = rows_per_step(config) * (SECONDS_PER_ROW if seconds_per_row is None else seconds_per_row)
    slowness = 1.0 if seconds_per_row is None else seconds_per_row / SECONDS_PER_ROW
    per_image = config.validation_num_inference_steps * SECONDS_PER_DENOISING_STEP * slowness
    prompts = 1 + len(config.validation_prompts or (*NEW_SCENES, "the class"))
    rounds = 1
    if seconds_per_row is None:  # A measured speed has the images between the steps in it.
        rounds += math.ceil(config.max_train_steps / config.validation_step_interval)
    num_images = 0 if config.validation_disable else prompts * rounds
    num_images += max(0, config.num_class_images - num_ready_class_images)
    seconds = LOAD_AND_SAVE_SECONDS + config.max_train_steps * per_step + num_images * per_image
    return Estimate(
        seconds, config.max_train_steps, per_step, num_images, per_image, seconds_per_row is not None
    )
