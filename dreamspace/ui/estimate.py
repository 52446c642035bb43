"""How long a run will take, by a rule that fits into one sentence and is shown with the figure."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from dreamspace.config import Prior, RunConfig, prior_of
from dreamspace.config.rollout import rollout_probability
from dreamspace.data.plan import balancing_repeats
from dreamspace.jobs.new_run import NEW_SCENES
from dreamspace.ui.history import History
from dreamspace.ui.library import Run

# Measured with mini on two CPU cores; a machine that has trained before is judged by that.
SECONDS_PER_ROW = 0.03
SECONDS_PER_DENOISING_STEP = 0.035
LOAD_AND_SAVE_SECONDS = 15.0

FORWARD_COST = 0.36
"""What a forward pass without gradients costs, as a share of a trained row; benchmarks/step_time.py."""

CLASS_IMAGE_STEPS = 20
"""Denoising steps of a class image, whatever the run's validation images take."""


@dataclass(frozen=True)
class Estimate:
    """How long a run takes, and why.

    Attributes:
        num_images: pictures that are drawn to look at.
        num_class_images: pictures that are drawn to remember the class by.
        prior_seconds: of `seconds`, what keeping the prior adds.
        rollout_seconds: of `seconds`, what rolling out adds.
        is_measured: whether the steps' speed is that of an earlier run on this machine.
    """

    seconds: float
    num_steps: int
    seconds_per_step: float
    num_images: int
    seconds_per_image: float
    num_class_images: int
    seconds_per_class_image: float
    prior_seconds: float
    rollout_seconds: float
    is_measured: bool


def prior_share(prior: Prior, num_photos: int, num_class_images: int) -> float:
    """Of the pictures of an epoch, the share that keeps the prior, in a run as `write_run` makes it."""
    num_prior = {"none": 0, "image-free": num_photos}.get(prior, num_class_images)
    if not num_photos or not num_prior:
        return 0.0
    prior_rows = num_prior * (1 + balancing_repeats(num_prior, num_photos))
    return prior_rows / (prior_rows + num_photos * (1 + balancing_repeats(num_photos, num_prior)))


def row_cost(config: RunConfig, prior: Prior, share: float) -> float:
    """The mean cost of a row, where one that is only trained costs 1."""
    base_predictions = share if prior in ("base", "image-free") else 0.0
    return 1 + FORWARD_COST * (base_predictions + mean_rollout_steps(config))


def mean_rollout_steps(config: RunConfig) -> float:
    """How many steps a row is rolled out, as a mean over all rows of the run."""
    steps = range(0, config.max_train_steps, math.ceil(config.max_train_steps / 1000))
    share = sum(rollout_probability(step, config) for step in steps) / len(steps)
    lengths = {"uniform": 1 / 2, "biased_early": 1 / 3, "biased_late": 2 / 3}
    return share * config.scheduled_sampling_max_step_offset * lengths[config.scheduled_sampling_strategy]


def measured_seconds_per_row(runs: Iterable[tuple[Run, History]], config: RunConfig) -> float | None:
    """Seconds of a row that is only trained, in the newest run with the same base model; None without one."""
    for run, history in runs:
        speed = history.progress["steps_per_second"] if history.progress else None
        past = run.config
        if speed and past.pretrained_model_name_or_path == config.pretrained_model_name_or_path:
            shares = history.mixture["datasets"] if history.mixture else {}
            share = sum(shares.get(d.id, 0.0) for d in run.datasets if d.is_regularisation_data)
            return 1 / speed / rows_per_step(past) / row_cost(past, prior_of(list(run.datasets)), share)
    return None


def rows_per_step(config: RunConfig) -> int:
    """Images that one step learns from, on one device."""
    return config.train_batch_size * config.gradient_accumulation_steps


def estimate(
    config: RunConfig,
    prior: Prior,
    share: float,
    seconds_per_row: float | None,
    num_ready_class_images: int = 0,
) -> Estimate | None:
    """The time of a run with this configuration; None if nothing is known about its base model.

    Args:
        share: of the rows that keep the prior; see `prior_share`.
        seconds_per_row: of an earlier run; None takes the figure for mini.
        num_ready_class_images: that are in their folder already.
    """
    if seconds_per_row is None and config.pretrained_model_name_or_path != "mini":
        return None
    plain_step = rows_per_step(config) * (SECONDS_PER_ROW if seconds_per_row is None else seconds_per_row)
    per_step = plain_step * row_cost(config, prior, share)
    slowness = 1.0 if seconds_per_row is None else seconds_per_row / SECONDS_PER_ROW
    per_image = config.validation_num_inference_steps * SECONDS_PER_DENOISING_STEP * slowness
    per_class_image = CLASS_IMAGE_STEPS * SECONDS_PER_DENOISING_STEP * slowness
    prompts = 1 + len(config.validation_prompts or (*NEW_SCENES, "the class"))
    rounds = 1
    if seconds_per_row is None:  # A measured speed has the images between the steps in it.
        rounds += math.ceil(config.max_train_steps / config.validation_step_interval)
    num_images = 0 if config.validation_disable else prompts * rounds
    num_class_images = max(0, config.num_class_images - num_ready_class_images)
    drawing = num_class_images * per_class_image
    rollout = config.max_train_steps * plain_step * FORWARD_COST * mean_rollout_steps(config)
    predictions = config.max_train_steps * (per_step - plain_step) - rollout
    return Estimate(
        seconds=LOAD_AND_SAVE_SECONDS + config.max_train_steps * per_step + num_images * per_image + drawing,
        num_steps=config.max_train_steps,
        seconds_per_step=per_step,
        num_images=num_images,
        seconds_per_image=per_image,
        num_class_images=num_class_images,
        seconds_per_class_image=per_class_image,
        prior_seconds=predictions + drawing,
        rollout_seconds=rollout,
        is_measured=seconds_per_row is not None,
    )
