"""What is trained: an adapter on the base model, or the whole of it; and loading it into stock pipelines."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from dreamspace.config import RunConfig
from dreamspace.models.base import BaseModel
from dreamspace.models.family import Family
from dreamspace.models.full import FullModel, load_full
from dreamspace.models.lora import Lora
from dreamspace.models.parameters import Adapter
from dreamspace.models.peft_lycoris import PeftLycoris
from dreamspace.models.text import TextEncoders
from dreamspace.models.token import NoAdapter, WithToken, load_token
from dreamspace.models.weights import check_weights, fits
from dreamspace.run_folder import (
    EMBEDS_NAME,
    FULL_WEIGHTS_NAME,
    LYCORIS_PREFIX,
    WEIGHTS_NAME,
    weights_file,
)


def new_adapter(config: RunConfig, model: BaseModel, text: TextEncoders | None = None) -> Adapter:
    """What a run trains, on a freshly loaded denoiser; it changes nothing yet.

    Args:
        text: of a run that trains something of the text encoders.
    """
    adapter = _of_denoiser(config, model, text)
    return adapter if text is None or text.token is None else WithToken(adapter, text.token)


def _of_denoiser(config: RunConfig, model: BaseModel, text: TextEncoders | None) -> Adapter:
    if config.model_type == "full":
        return FullModel(model)
    denoiser = model.load_denoiser()
    if config.model_type == "textual_inversion":
        return NoAdapter(denoiser)
    if config.lora_type == "lycoris":
        from dreamspace.models.lycoris import Lycoris

        return Lycoris(denoiser, model.family, config)
    if config.lora_type != "standard":
        return PeftLycoris(denoiser, model.family, config)
    return Lora(denoiser, model.family, config, {} if text is None else text.adapted)


def changes_text(folder: Path) -> bool:
    """Whether what was trained changes what a prompt becomes: a learned token, or a LoRA on text encoders.

    Raises:
        ValueError: if the file is damaged.
    """
    if (folder / EMBEDS_NAME).is_file():
        return True
    if not (folder / WEIGHTS_NAME).is_file():
        return False
    check_weights(folder / WEIGHTS_NAME)
    with safe_open(folder / WEIGHTS_NAME, framework="pt") as opened:
        return any(name.startswith("text_encoder") for name in opened.keys())  # noqa: SIM118 (it is no dict)


def is_lycoris(file: Path) -> bool:
    """Whether a file holds a LyCORIS adapter, by the names of its weights."""
    with safe_open(file, framework="pt") as opened:
        return all(name.startswith(LYCORIS_PREFIX) for name in opened.keys())  # noqa: SIM118 (it is no dict)


def load_into_pipeline(pipeline: Any, family: Family, folder: Path) -> None:
    """Load what was trained into a stock pipeline of the base model.

    A LoRA and a learned token go in by the pipeline's own loaders, a LyCORIS adapter by LyCORIS' and a full
    model by its names.

    Args:
        pipeline: with its text encoders, where the adapter changes these.

    Raises:
        ValueError: if it was trained on another model, or is damaged.
    """
    check_weights(weights_file(folder))
    sentence = f"The adapter in {folder} does not fit the model. Give the model that it was trained on."
    denoiser = getattr(pipeline, family.denoiser_part)
    try:
        if (folder / EMBEDS_NAME).is_file():
            load_token(pipeline, folder / EMBEDS_NAME)
        if (folder / family.denoiser_part / FULL_WEIGHTS_NAME).is_file():
            load_full(denoiser, folder / family.denoiser_part / FULL_WEIGHTS_NAME)
        elif not (folder / WEIGHTS_NAME).is_file():
            if not (folder / EMBEDS_NAME).is_file():
                raise ValueError(sentence)
        elif is_lycoris(folder / WEIGHTS_NAME):
            from dreamspace.models.lycoris import load_lycoris

            load_lycoris(denoiser, family, folder / WEIGHTS_NAME)
        else:
            # Of what it does not know diffusers takes nothing, silently.
            if not fits(folder / WEIGHTS_NAME, denoiser, family.denoiser_part):
                raise ValueError(sentence)
            pipeline.load_lora_weights(folder, weight_name=WEIGHTS_NAME)
            if not pipeline.get_active_adapters():
                raise ValueError(sentence)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, FileNotFoundError) as error:  # of other shapes, or for other layers
        raise ValueError(sentence) from error
