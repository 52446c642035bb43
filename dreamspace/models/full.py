"""A denoiser that is trained whole."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from dreamspace.models.base import BaseModel
from dreamspace.models.parameters import ParameterGroup, trained_parameters


class FullModel:
    """All weights of a denoiser, in fp32; what is saved is a part of a model in diffusers' layout."""

    is_saved_exactly = True

    def __init__(self, model: BaseModel) -> None:
        self.model = model
        self.denoiser = model.load_denoiser().requires_grad_(True)
        self.parameters = trained_parameters(self.denoiser)
        self.parameter_groups = [ParameterGroup("denoiser", self.parameters)]

    @cached_property
    def _base(self) -> nn.Module:
        """The base model as it was: loaded once more, and only where it is asked for."""
        return self.model.load_denoiser()

    @contextmanager
    def off(self) -> Iterator[nn.Module]:
        """The base model, which costs the memory of its frozen weights once more."""
        yield self._base

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """A full model has no strength but 1."""
        assert strength == 1, strength
        return nullcontext()

    def save(self, folder: Path) -> None:
        """Write the denoiser as a part of a model folder, such as `unet/`."""
        self.denoiser.save_pretrained(folder / self.model.family.denoiser_part, max_shard_size="1TB")

    def load(self, file: Path) -> None:
        """Restore the weights that `save` wrote, bit-exactly.

        Raises:
            ValueError: if they are another model's.
        """
        load_full(self.denoiser, file)


def load_full(denoiser: nn.Module, file: Path) -> None:
    """Put saved weights of a whole denoiser in place.

    Raises:
        ValueError: if they do not fit.
    """
    stored, own = load_file(file), denoiser.state_dict()
    if stored.keys() != own.keys() or any(stored[name].shape != own[name].shape for name in own):
        raise ValueError(
            f"The weights in {file.parent} do not fit the model. Give the model that they were trained from."
        )
    with torch.no_grad():
        denoiser.load_state_dict(stored)
