"""The proof that what was saved works: nothing is done before an image says so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dreamspace.models.adapters import changes_text, load_into_pipeline
from dreamspace.models.base import BaseModel
from dreamspace.models.text import TextEncoders
from dreamspace.training.optimizers import finds_learning_rate
from dreamspace.training.saving import Weights
from dreamspace.training.validation import Validator

PROOF_THRESHOLD = 0.5
"""Mean difference in grey levels (of 255) that an adapter must make to an image at a fixed seed."""

TOLERANCES = {torch.float32: 0.1, torch.float16: 0.2, torch.bfloat16: 0.5}
"""The share of an adapter's effect that may be lost when it is loaded again.

Stock pipelines round an adapter to the precision of the base model; one that loads without its alpha, or
without some of its layers, is further away.
"""

ROUNDING = {torch.float32: 0.5, torch.float16: 1.0, torch.bfloat16: 2.0}
"""Grey levels by which an image differs from itself where the same sums are rounded in another order."""

MAX_INFERENCE_STEPS = 10
"""Enough to see a difference by."""


def prove(adapter_folder: Path, model: BaseModel, validator: Validator, weights: Weights = "trained") -> None:
    """Load a saved adapter into a fresh base model by the stock loader, and compare its image.

    Args:
        validator: its pipeline holds the trained denoiser, in evaluation mode.
        weights: that are in place and in the folder.

    Raises:
        ValueError: if the adapter draws nothing, or changes nothing.
        RuntimeError: if the loaded adapter draws another image than the trained one.
    """
    trained_name = "trained model" if validator.config.model_type == "full" else "trained adapter"
    name = "moving average" if weights == "ema" else trained_name
    num_inference_steps = min(MAX_INFERENCE_STEPS, validator.settings.num_inference_steps)
    validator = replace(
        validator, settings=replace(validator.settings, num_inference_steps=num_inference_steps)
    )
    prompts = validator.prompts[:1]
    has_text = changes_text(adapter_folder)
    pipeline = model.pipeline(model.load_denoiser(), validator.vae, has_text)
    base = replace(validator, pipeline=pipeline, text=None).images(prompts)[0]
    if base is None or not np.ptp(np.asarray(base)):
        raise ValueError(
            f"The base model itself draws an empty image of '{prompts[0]}': its files are damaged, or its "
            "numbers overflow. Download it again, or set mixed_precision to 'no'; checkpoints are kept."
        )
    trained = validator.images(prompts)[0]
    if trained is None or not np.ptp(np.asarray(trained)):
        raise ValueError(
            f"The {name} draws an empty image of '{prompts[0]}': its weights ran away. "
            "Lower learning_rate; earlier checkpoints are kept."
        )
    load_into_pipeline(pipeline, model.family, adapter_folder)
    text = TextEncoders(model.family, pipeline) if has_text else None
    loaded = replace(validator, pipeline=pipeline, text=text).images(prompts)[0]
    if loaded is None:
        raise RuntimeError(f"The saved {name} draws no image at all, and the trained one does.")
    change, error = grey_levels_apart(base, loaded), grey_levels_apart(trained, loaded)
    dtype = model.denoiser_dtype
    if error > max(ROUNDING[dtype], TOLERANCES[dtype] * grey_levels_apart(base, trained)):
        raise RuntimeError(
            f"The saved {name} draws an image {error:.2f} grey levels away from the trained one's, "
            f"and {change:.2f} away from the base model's."
        )
    if change < PROOF_THRESHOLD:
        advice = f"Train longer than {validator.config.max_train_steps} steps"
        if weights == "ema":
            advice += ", or lower ema_decay"
        elif not finds_learning_rate(validator.config):
            advice += ", or raise learning_rate"
        raise ValueError(
            f"The {name} changes the image of '{prompts[0]}' by {change:.2f} of 255 grey levels, "
            f"which is nothing. {advice}."
        )


def grey_levels_apart(first: Image.Image, second: Image.Image) -> float:
    """Mean absolute difference of two RGB pictures of one size, in grey levels of 255."""
    return float(np.abs(np.asarray(first, np.float32) - np.asarray(second, np.float32)).mean())
