"""What is trained: an adapter on the base model, or the whole of it; and loading it into stock pipelines."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import nn

from dreamspace.config import RunConfig
from dreamspace.models.base import BaseModel
from dreamspace.models.family import Family
from dreamspace.models.full import FullModel, load_full
from dreamspace.models.lora import Lora
from dreamspace.models.parameters import ParameterGroup
from dreamspace.models.weights import check_weights, fits
from dreamspace.run_folder import FULL_WEIGHTS_NAME, LYCORIS_PREFIX, WEIGHTS_NAME, weights_file


class Adapter(Protocol):
    """The trainable part of a denoiser.

    Attributes:
        denoiser: the module with the adapter in it.
        parameter_groups: what the optimizer trains, fp32.
        parameters: all of them.
        is_saved_exactly: whether `load` restores what `save` wrote to the last bit.
    """

    is_saved_exactly: bool
    denoiser: nn.Module
    parameter_groups: list[ParameterGroup]
    parameters: list[nn.Parameter]

    def off(self) -> AbstractContextManager[nn.Module]:
        """The base model's denoiser, for its own predictions; exactly what it was before the training."""
        ...

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """The adapter's effect times `strength`."""
        ...

    def save(self, folder: Path) -> None:
        """Write what is trained into a folder."""
        ...

    def load(self, file: Path) -> None:
        """Restore the file that `save` wrote.

        Raises:
            ValueError: if it does not fit.
        """
        ...


def new_adapter(config: RunConfig, model: BaseModel) -> Adapter:
    """What a run trains, on a freshly loaded denoiser; it changes nothing yet."""
    if config.model_type == "full":
        return FullModel(model)
    if config.lora_type == "lycoris":
        from dreamspace.models.lycoris import Lycoris

        return Lycoris(model.load_denoiser(), model.family, config)
    return Lora(model.load_denoiser(), model.family, config)


def is_lycoris(file: Path) -> bool:
    """Whether a file holds a LyCORIS adapter, by the names of its weights."""
    with safe_open(file, framework="pt") as opened:
        return all(name.startswith(LYCORIS_PREFIX) for name in opened.keys())  # noqa: SIM118 (it is no dict)


def load_into_pipeline(pipeline: Any, family: Family, folder: Path) -> None:
    """Load what was trained into a stock pipeline of the base model.

    A LoRA goes in by the pipeline's own loader, a LyCORIS adapter by LyCORIS' and a full model by its names.

    Raises:
        ValueError: if it was trained on another model, or is damaged.
    """
    check_weights(weights_file(folder))
    sentence = f"The adapter in {folder} does not fit the model. Give the model that it was trained on."
    denoiser = getattr(pipeline, family.denoiser_part)
    try:
        if not (folder / WEIGHTS_NAME).is_file():
            load_full(denoiser, folder / family.denoiser_part / FULL_WEIGHTS_NAME)
        elif is_lycoris(folder / WEIGHTS_NAME):
            from dreamspace.models.lycoris import load_lycoris

            load_lycoris(denoiser, folder / WEIGHTS_NAME)
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
