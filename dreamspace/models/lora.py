"""LoRA and DoRA by PEFT, and the base model that is still there beneath."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from dreamspace.config import RunConfig
from dreamspace.models.family import Family
from dreamspace.models.parameters import ParameterGroup, trained_parameters


class Lora:
    """A LoRA (arXiv:2106.09685), or a DoRA (arXiv:2402.09353), on the family's target modules.

    Its second matrix starts at zero; alpha / rank scales it, where no alpha means the rank.
    """

    is_saved_exactly = True

    def __init__(self, denoiser: nn.Module, family: Family, config: RunConfig) -> None:
        self.denoiser, self.family = denoiser, family
        torch.manual_seed(config.seed)
        denoiser.add_adapter(
            LoraConfig(
                r=config.lora_rank,
                lora_alpha=config.lora_rank if config.lora_alpha is None else config.lora_alpha,
                lora_dropout=config.lora_dropout,
                use_dora=config.use_dora,
                target_modules=list(family.lora_targets),
            )
        )
        self.parameters = trained_parameters(denoiser)
        self.parameter_groups = [ParameterGroup("denoiser", self.parameters)]
        self._layers = [module for module in denoiser.modules() if isinstance(module, LoraLayer)]

    @contextmanager
    def off(self) -> Iterator[nn.Module]:
        """The denoiser without its adapter, for the base model's own predictions.

        Sets the flag on a cached list of layers: PEFT's `disable_adapters` walks the whole module and
        flips `requires_grad`, which costs 5 ms on a model of 70 layers.
        """
        for layer in self._layers:
            layer._disable_adapters = True
        try:
            yield self.denoiser
        finally:
            for layer in self._layers:
                layer._disable_adapters = False

    @contextmanager
    def at_strength(self, strength: float) -> Iterator[None]:
        """The adapter times `strength`."""
        for layer in self._layers:
            layer.scale_layer(strength)
        try:
            yield
        finally:
            for layer in self._layers:
                layer.unscale_layer()

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

    def load(self, file: Path) -> None:
        """Restore the weights that `save` wrote, bit-exactly in fp32.

        Raises:
            ValueError: if the file does not fit this adapter.
        """
        self._check_alpha(file)
        prefix = f"{self.family.denoiser_part}."
        stored = load_file(file)
        weights = {name.removeprefix(prefix): weight for name, weight in stored.items()}
        own = get_peft_model_state_dict(self.denoiser)
        num_fitting = sum(name in weights and weights[name].shape == own[name].shape for name in own)
        if not num_fitting == len(own) == len(weights):
            raise ValueError(
                f"The adapter in {file.parent.name} does not fit this model and lora_rank: {num_fitting} of "
                f"its {len(weights)} weights fit, {len(own)} are needed. Start a new run instead."
            )
        set_peft_model_state_dict(self.denoiser, weights)

    def _check_alpha(self, file: Path) -> None:
        """Raise ValueError if a file's weights are meant at another strength than this adapter's."""
        with safe_open(file, framework="pt") as opened:
            settings = json.loads((opened.metadata() or {}).get("lora_adapter_metadata", "{}"))
        theirs = settings.get(f"{self.family.denoiser_part}.lora_alpha")
        ours = self.denoiser.peft_config["default"].lora_alpha
        if theirs not in (None, ours):
            raise ValueError(
                f"The adapter in {file.parent.name} has alpha {theirs:g}, and this run's is {ours:g}. Set "
                "lora_alpha to the adapter's own."
            )
