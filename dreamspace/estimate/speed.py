"""How long a run takes, and what that costs: by the speed of an earlier run, or by what the hardware can do.

One rule serves both: seconds of a row that is only trained, and costs of everything else in such rows.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from dreamspace.config import DatasetConfig, Prior, RunConfig, prior_of
from dreamspace.config.rollout import rollout_probability
from dreamspace.config.sections import MAX_STEPS
from dreamspace.data.plan import balancing_repeats
from dreamspace.estimate.hardware import Hardware
from dreamspace.estimate.profiles import ModelProfile
from dreamspace.evaluation.plan import num_drawings
from dreamspace.jobs.events import Event
from dreamspace.jobs.new_run import num_prompts

FORWARD_COST = 0.36
"""What a forward pass without gradients costs, as a share of a trained row; benchmarks/step_time.py."""

DENOISING_COST = 1.1
"""What a denoising step of an image costs, guidance included, where a trained row costs 1; with mini."""

CLASS_IMAGE_STEPS = 20
"""Denoising steps of a class image, whatever the run's validation images take."""

UTILISATION = {"cuda": 0.4, "mps": 0.25, "cpu": 0.8}
"""The share of a device's peak that large multiplications reach. That of a GPU is what
transformers usually come to in bf16, and is not measured here; that of the CPU is mini's: 18 ms for each row
of a step."""

SECONDS_PER_OPERATION = {"cuda": 6e-6, "mps": 10e-6, "cpu": 2.3e-6}
"""What the host needs for one operation of a forward or backward pass. On fast GPUs the UNets wait for it:
SimpleTuner takes as long on an L40S as on an H100 for SD 1.5 (0.18 s a step) and SDXL (0.6 s). On the CPU it
is what a step of mini takes besides its rows: 44 ms."""

QUANTISED_COST = {"cuda": 2.6, "mps": 2.6, "cpu": 1.6}
"""What making quantised weights whole again adds to each operation; SimpleTuner's figures for SDXL."""

CHECKPOINTING_COST = 1.4
"""Gradient checkpointing makes a forward pass twice; the levers of benchmarks/step_time.py."""

LOAD_AND_SAVE_SECONDS = 15.0
"""Of mini, imports included."""

LOAD_BYTES_PER_SECOND = 5e8
"""Weights that are read from a disk and brought to the device."""


@dataclass(frozen=True)
class Speed:
    """How fast a base model is trained and drawn with.

    Attributes:
        seconds_per_row: that is only trained.
        seconds_per_denoising_step: of one image.
        load_and_save_seconds: of a run.
        is_measured: whether it is that of an earlier run, which drew its images meanwhile.
    """

    seconds_per_row: float
    seconds_per_denoising_step: float
    load_and_save_seconds: float = LOAD_AND_SAVE_SECONDS
    is_measured: bool = False


@dataclass(frozen=True)
class PastRun:
    """What an earlier run on this machine tells: its settings, and its last `progress` and `mixture`."""

    config: RunConfig
    datasets: tuple[DatasetConfig, ...]
    progress: Event | None
    mixture: Event | None


@dataclass(frozen=True)
class TimeEstimate:
    """How long a run takes, and why.

    Attributes:
        num_images: pictures that are drawn to look at, and at the end to compare all checkpoints by.
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
    load_and_save_seconds: float
    is_measured: bool

    def cost_usd(self, hardware: Hardware) -> float | None:
        """Money for the whole run; None where nothing is asked for it."""
        return None if hardware.usd_per_hour is None else self.seconds / 3600 * hardware.usd_per_hour


def prior_share(prior: Prior, num_photos: int, num_class_images: int) -> float:
    """Of the pictures of an epoch, the share that keeps the prior, in a run as `write_run` makes it.

    Args:
        num_photos: that are trained on.
    """
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


def rows_per_step(config: RunConfig) -> int:
    """Images that one step learns from, on one device."""
    return config.train_batch_size * config.gradient_accumulation_steps


SAME_SPEED = (
    *("pretrained_model_name_or_path", "model_type", "mixed_precision", "base_model_precision"),
    *("gradient_checkpointing", "enable_group_offload"),
)
"""Settings on which the time of a row depends much; the size of the pictures is not in a run's config."""


def measured_seconds_per_row(runs: Iterable[PastRun], config: RunConfig) -> float | None:
    """Seconds of a row that is only trained, in the newest run like this one; None without one."""
    for run in runs:
        speed = run.progress["steps_per_second"] if run.progress else None
        if speed and all(getattr(run.config, name) == getattr(config, name) for name in SAME_SPEED):
            shares = run.mixture["datasets"] if run.mixture else {}
            share = sum(shares.get(d.id, 0.0) for d in run.datasets if d.is_regularisation_data)
            cost = row_cost(run.config, prior_of(list(run.datasets)), share)
            return 1 / speed / rows_per_step(run.config) / cost
    return None


def expected_speed(
    config: RunConfig,
    profile: ModelProfile | None,
    size_px: tuple[int, int],
    hardware: Hardware,
    seconds_per_row: float | None = None,
) -> Speed | None:
    """The speed of a base model on some hardware; None where neither it nor its profile is known.

    Args:
        seconds_per_row: of an earlier run on it, which goes before what the hardware promises.
    """
    if profile is None:
        if seconds_per_row is None:
            return None
        return Speed(seconds_per_row, DENOISING_COST * seconds_per_row, is_measured=True)
    flops = profile.at(*size_px, lambda size: size.forward_flops)
    passes = 3 if config.model_type == "full" else 2  # without gradients of frozen weights, one less
    per_operation = SECONDS_PER_OPERATION[hardware.device]
    if config.base_model_precision != "no_change":
        per_operation *= QUANTISED_COST[hardware.device]
    achieved = hardware.peak_flops * UTILISATION[hardware.device]
    host = profile.num_operations * per_operation

    def together(computing: float, starting: float) -> float:
        """A GPU computes while the host starts what comes next."""
        return computing + starting if hardware.device == "cpu" else max(computing, starting)

    # The operations of a batch are started once for all of its rows.
    promised = together(flops * passes / achieved, host / config.train_batch_size)
    if config.gradient_checkpointing:
        promised *= CHECKPOINTING_COST
    # A third of a step's operations are the forward pass's; guidance makes it twice, in one batch.
    drawing = together(2 * flops / achieved, host / 3)
    slowness = 1.0 if seconds_per_row is None else seconds_per_row / promised
    weights = sum(part.total for part in profile.parts.values()) * 4
    return Speed(
        seconds_per_row=promised * slowness,
        seconds_per_denoising_step=drawing * slowness,
        load_and_save_seconds=LOAD_AND_SAVE_SECONDS + weights / LOAD_BYTES_PER_SECOND,
        is_measured=seconds_per_row is not None,
    )


def _num_evaluation_images(config: RunConfig) -> int:
    """Of the base model and every checkpoint, plain and averaged."""
    if not config.evaluate_checkpoints or config.evaluation_type == "none":
        return 0
    num_checkpoints = math.ceil(config.max_train_steps / config.checkpoint_step_interval)
    return (1 + num_checkpoints * (1 + config.use_ema)) * num_drawings(config)


def estimate_time(
    config: RunConfig, prior: Prior, share: float, speed: Speed, num_ready_class_images: int = 0
) -> TimeEstimate:
    """How long a run takes.

    Args:
        share: of the rows that keep the prior; see `prior_share`.
        num_ready_class_images: that are in their folder already.
    """
    plain_step = rows_per_step(config) * speed.seconds_per_row
    per_step = plain_step * row_cost(config, prior, share)
    per_image = config.validation_num_inference_steps * speed.seconds_per_denoising_step
    per_class_image = CLASS_IMAGE_STEPS * speed.seconds_per_denoising_step
    num_shots = num_prompts(config) * config.num_validation_images * max(1, len(config.validation_sizes_px))
    rounds = 1
    if not speed.is_measured:  # A measured speed has the images between the steps in it.
        # Those of validation_epoch_interval are not in it: only the photos tell how long an epoch is.
        rounds += math.ceil(config.max_train_steps / (config.validation_step_interval or MAX_STEPS))
    num_images = (0 if config.validation_disable else num_shots * rounds) + _num_evaluation_images(config)
    num_class_images = max(0, config.num_class_images - num_ready_class_images)
    drawing = num_class_images * per_class_image
    rollout = config.max_train_steps * plain_step * FORWARD_COST * mean_rollout_steps(config)
    predictions = config.max_train_steps * (per_step - plain_step) - rollout
    steps = config.max_train_steps * per_step
    return TimeEstimate(
        seconds=speed.load_and_save_seconds + steps + num_images * per_image + drawing,
        num_steps=config.max_train_steps,
        seconds_per_step=per_step,
        num_images=num_images,
        seconds_per_image=per_image,
        num_class_images=num_class_images,
        seconds_per_class_image=per_class_image,
        prior_seconds=predictions + drawing,
        rollout_seconds=rollout,
        load_and_save_seconds=speed.load_and_save_seconds,
        is_measured=speed.is_measured,
    )
