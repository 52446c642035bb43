"""How many weights a run trains, and how many bytes those of a base model take."""

import math

from dreamspace.config import RunConfig
from dreamspace.config.lycoris import LycorisConfig
from dreamspace.config.precision import Precision
from dreamspace.estimate.profiles import Format, ModelProfile, PartProfile

BYTES_PER_WEIGHT: dict[Precision, float] = {
    "int8-quanto": 1.0,
    "fp8-quanto": 1.0,
    "int8-torchao": 1.0,
    "fp8-torchao": 1.0,
    "int4-quanto": 0.5 + 4 / 32,  # A scale and a shift of 16 bits for each 32 weights.
    "int2-quanto": 0.25 + 4 / 32,
    "int4-torchao": 0.5 + 3 / 32,
    "nf4-bnb": 0.5 + 4 / 64,
}
"""Of the weights that a level quantises; the others keep the run's format."""

OPTIMIZER_BYTES = {
    "adamw": 8.0,
    "adamw_bf16": 4.0,
    "bnb-adamw8bit": 2.0 + 8 / 256,
    "lion": 4.0,
    "adafactor": 0.5,
    "prodigy": 16.0,
    "adamw_schedulefree": 8.0,
}
"""What an optimizer keeps for each weight that is trained."""

LYCORIS_SHARE = {"loha": 2.0, "lokr": 0.15, "ia3": 0.05, "glora": 2.0, "diag-oft": 0.5, "boft": 2.0}
"""Weights of an algorithm for those of a LoRA of the same rank, roughly; others have as many as LoRA."""


def number_format(config: RunConfig) -> Format:
    """The numbers that a run computes in."""
    return "fp32" if config.mixed_precision == "no" else "bf16"


def num_trained(config: RunConfig, profile: ModelProfile) -> int:
    """How many weights a run trains of the denoiser; of LyCORIS, roughly."""
    if config.model_type == "full":
        return profile.parts[profile.denoiser].total
    if config.model_type == "textual_inversion":
        return 0
    if config.lora_type == "lokr":
        return _of_lokr(profile, config.lora_rank, -1)
    if config.lora_type == "loha":
        return round(profile.adapter_per_rank * config.lora_rank * LYCORIS_SHARE["loha"])
    if config.lora_type == "standard":
        magnitudes = profile.adapter_outputs if config.use_dora else 0
        return profile.adapter_per_rank * config.lora_rank + magnitudes
    settings = config.lycoris_config or LycorisConfig()
    if settings.algo == "full":
        return profile.parts[profile.denoiser].linear
    if settings.algo == "lokr":
        return _of_lokr(profile, math.inf if settings.full_matrix else settings.linear_dim, settings.factor)
    return round(profile.adapter_per_rank * settings.linear_dim * LYCORIS_SHARE.get(settings.algo, 1.0))


def _of_lokr(profile: ModelProfile, rank: float, factor: int) -> int:
    """Of low-rank matrices; of whole ones, where these are smaller: the factor's square divides a layer."""
    # Without a factor two of about the square root of a layer.
    whole = profile.parts[profile.denoiser].linear / factor**2 if factor > 0 else profile.adapter_per_rank
    return round(min(profile.adapter_per_rank * rank * LYCORIS_SHARE["lokr"], whole))


def precision_key(text_encoder: str) -> str:
    """The setting of a text encoder's precision."""
    return f"text_encoder_{text_encoder.removeprefix('text_encoder').removeprefix('_') or '1'}_precision"


def bytes_of_part(part: PartProfile, precision: Precision, bytes_per_weight: int) -> float:
    """A part's weights.

    Args:
        bytes_per_weight: of those that are not quantised.
    """
    if precision == "no_change":
        return (part.total + part.buffers) * bytes_per_weight
    quantised = part.linear + (part.convolution if precision.endswith("quanto") else 0)
    return (
        quantised * BYTES_PER_WEIGHT[precision] + (part.total + part.buffers - quantised) * bytes_per_weight
    )


def offloaded_bytes(config: RunConfig, profile: ModelProfile) -> float:
    """Of the denoiser's blocks, which group offloading keeps in the machine's own memory."""
    part = profile.parts[profile.denoiser]
    everything = bytes_of_part(part, config.base_model_precision, 4 if number_format(config) == "fp32" else 2)
    return everything * part.in_blocks / part.total
