"""LoRA on a denoiser, and the base model that is still there beneath it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import nn

from dreamspace.models.family import Family
from dreamspace.run_folder import WEIGHTS_NAME


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are trained alike, such as those of one model among several.

    Attributes:
        learning_rate_factor: their learning rate as a multiple of the run's.
    """

    name: str
    parameters: list[nn.Parameter]
    learning_rate_factor: float = 1.0


class Adapter:
    """The trainable part of a denoiser.

    Attributes:
        denoiser: the module with the LoRA layers in it.
        parameter_groups: what the optimizer trains, fp32.
        parameters: all of them.
    """

    def __init__(self, denoiser: nn.Module, family: Family) -> None:
        self.denoiser, self.family = denoiser, family
        trained = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
        self.parameter_groups = [ParameterGroup("denoiser", trained)]
        self.parameters = [parameter for group in self.parameter_groups for parameter in group.parameters]
        self._layers = [module for module in denoiser.modules() if isinstance(module, LoraLayer)]

    @contextmanager
    def off(self) -> Iterator[None]:
        """The denoiser without its adapter, for the base model's own predictions.

        Sets the flag on a cached list of layers: PEFT's `disable_adapters` walks the whole module and
        flips `requires_grad`, which costs 5 ms on a model of 70 layers.
        """
        for layer in self._layers:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer in self._layers:
                layer._disable_adapters = False

    def save(self, folder: Path) -> None:
        """Write `pytorch_lora_weights.safetensors` as stock pipelines load it, alpha included."""
        # Without the metadata, alpha is lost and the adapter loads with alpha = rank. Its dropout would stay
        # active in stock pipelines: diffusers leaves the layers that it loads in training mode.
        metadata = self.denoiser.peft_config["default"].to_dict() | {"lora_dropout": 0.0}
        part = self.family.denoiser_part
        self.family.pipeline_class.save_lora_weights(
            folder,
            **{
                f"{part}_lora_layers": get_peft_model_state_dict(self.denoiser),
                f"{part}_lora_adapter_metadata": metadata,
            },
        )

    def load(self, folder: Path) -> None:
        """Restore the weights that `save` wrote into `folder`, bit-exactly in fp32.

        Raises:
            ValueError: if the file does not fit this adapter.
        """
        prefix = f"{self.family.denoiser_part}."
        stored = load_file(folder / WEIGHTS_NAME)
        weights = {name.removeprefix(prefix): weight for name, weight in stored.items()}
        own = get_peft_model_state_dict(self.denoiser)
        num_fitting = sum(name in weights and weights[name].shape == own[name].shape for name in own)
        if not num_fitting == len(own) == len(weights):
            raise ValueError(
                f"The adapter in {folder.name} does not fit this model and lora_rank: {num_fitting} of its "
                f"{len(weights)} weights fit, {len(own)} are needed. Start a new run instead."
            )
        set_peft_model_state_dict(self.denoiser, weights)


def add_lora(
    denoiser: nn.Module, family: Family, rank: int, alpha: float | None, dropout: float, seed: int
) -> Adapter:
    """Put a LoRA (arXiv:2106.09685) on the family's target modules; its second matrix starts at zero.

    Args:
        alpha: the update is scaled by alpha / rank; `None` makes alpha equal to the rank.
        dropout: the share of each layer's inputs that is set to zero in training.
        seed: decides the first matrix of each layer.
    """
    torch.manual_seed(seed)
    denoiser.add_adapter(
        LoraConfig(
            r=rank,
            lora_alpha=rank if alpha is None else alpha,
            lora_dropout=dropout,
            target_modules=list(family.lora_targets),
        )
    )
    for parameter in denoiser.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return Adapter(denoiser, family)


def load_into_pipeline(pipeline: Any, folder: Path) -> None:
    """Load a saved adapter into a stock pipeline without one, by the pipeline's own loader.

    Raises:
        ValueError: if the adapter was trained on another model.
    """
    sentence = f"The adapter in {folder} does not fit the model. Give the model that it was trained on."
    try:
        pipeline.load_lora_weights(folder, weight_name=WEIGHTS_NAME)
    except torch.OutOfMemoryError:
        raise
    except (
        RuntimeError,
        ValueError,
    ) as error:  # of other shapes, or for other layers
        raise ValueError(sentence) from error
    if not pipeline.get_active_adapters():  # of names it does not know it takes none, silently
        raise ValueError(sentence)
