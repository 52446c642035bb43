"""LoRA and DoRA by PEFT, and the base model that is still there beneath."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import MappingProxyType

import torch
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.lycoris_utils import LycorisLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from dreamspace.config import RunConfig
from dreamspace.models.family import Family
from dreamspace.models.parameters import ParameterGroup, trained_parameters

TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
"""The attention of CLIP's text encoders."""


class Lora:
    """A LoRA (arXiv:2106.09685), or a DoRA (arXiv:2402.09353), on the family's target modules.

    Its second matrix starts at zero; alpha / rank scales it, where no alpha means the rank.
    """

    is_saved_exactly = True

    def __init__(
        self,
        denoiser: nn.Module,
        family: Family,
        config: RunConfig,
        encoders: Mapping[str, nn.Module] = MappingProxyType({}),
    ) -> None:
        """
        Args:
            encoders: text encoders that get a LoRA too, by their part.
        """
        self.denoiser, self.family = denoiser, family
        self._adapted = {family.denoiser_part: denoiser, **encoders}
        for part, module in self._adapted.items():
            torch.manual_seed(config.seed)
            module.add_adapter(
                LoraConfig(
                    r=config.lora_rank,
                    lora_alpha=config.lora_rank if config.lora_alpha is None else config.lora_alpha,
                    lora_dropout=config.lora_dropout,
                    use_dora=config.use_dora,
                    target_modules=list(TEXT_TARGETS if part in encoders else family.lora_targets),
                )
            )
        self.parameter_groups = [ParameterGroup("denoiser", trained_parameters(denoiser))]
        if encoders:
            factor = 0.5 if config.text_encoder_lr is None else config.text_encoder_lr / config.learning_rate
            trained = [weight for encoder in encoders.values() for weight in trained_parameters(encoder)]
            self.parameter_groups.append(ParameterGroup("text_encoder", trained, factor))
        self.parameters = [weight for group in self.parameter_groups for weight in group.parameters]
        self._layers = [module for module in denoiser.modules() if isinstance(module, LoraLayer)]

    def off(self) -> AbstractContextManager[nn.Module]:
        """The denoiser without its adapter, for the base model's own predictions."""
        return switched_off(self.denoiser, self._layers)

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """The adapter times `strength`."""
        return scaled(self._layers, strength)

    def save(self, folder: Path) -> None:
        """Write `pytorch_lora_weights.safetensors` as stock pipelines load it, alpha included."""
        # Without the metadata, alpha is lost and the adapter loads with alpha = rank. Its dropout would stay
        # active in stock pipelines: diffusers leaves the layers that it loads in training mode. A text
        # encoder's adapter would tell the folder of this machine that it was loaded from.
        given = {}
        for part, module in self._adapted.items():
            given[f"{part}_lora_layers"] = _weights(module)
            settings = module.peft_config["default"].to_dict()
            settings |= {"lora_dropout": 0.0, "base_model_name_or_path": None}
            given[f"{part}_lora_adapter_metadata"] = settings
        self.family.pipeline_class.save_lora_weights(folder, **given)

    def load(self, file: Path) -> None:
        """Restore the weights that `save` wrote, bit-exactly in fp32.

        Raises:
            ValueError: if the file does not fit this adapter.
        """
        self._check_alpha(file)
        weights = load_file(file)
        own = {
            f"{part}.{name}": weight
            for part, module in self._adapted.items()
            for name, weight in _weights(module).items()
        }
        num_fitting = sum(name in weights and weights[name].shape == own[name].shape for name in own)
        if not num_fitting == len(own) == len(weights):
            raise ValueError(
                f"The adapter in {file.parent.name} does not fit this model and lora_rank: {num_fitting} of "
                f"its {len(weights)} weights fit, {len(own)} are needed. Start a new run instead."
            )
        for part, module in self._adapted.items():
            of_part = {
                name.removeprefix(f"{part}."): weights[name] for name in own if name.startswith(f"{part}.")
            }
            set_peft_model_state_dict(module, of_part)

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


@contextmanager
def switched_off(denoiser: nn.Module, layers: Sequence[BaseTunerLayer]) -> Iterator[nn.Module]:
    """A denoiser without what PEFT's layers add to it.

    Sets the flag on a cached list of layers: PEFT's `disable_adapters` walks the whole module and
    flips `requires_grad`, which costs 5 ms on a model of 70 layers.
    """
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield denoiser
    finally:
        for layer in layers:
            layer._disable_adapters = False


@contextmanager
def scaled(layers: Sequence[LoraLayer | LycorisLayer], strength: float) -> Iterator[None]:
    """What PEFT's layers add, times `strength`."""
    for layer in layers:
        layer.scale_layer(strength)
    try:
        yield
    finally:
        for layer in layers:
            layer.unscale_layer()


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """The weights of an adapter; not the embedding that was enlarged by a learned token, which PEFT adds."""
    return get_peft_model_state_dict(module, save_embedding_layers=False)
