"""LoHa and LoKr as PEFT builds them, written as LyCORIS does: stock pipelines load neither in PEFT's form."""

from contextlib import AbstractContextManager
from pathlib import Path

import torch
from peft import LoHaConfig, LoKrConfig, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lycoris_utils import LycorisLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dreamspace.config import RunConfig
from dreamspace.models.family import Family
from dreamspace.models.lora import scaled, switched_off
from dreamspace.models.parameters import ParameterGroup, trained_parameters
from dreamspace.run_folder import LYCORIS_PREFIX, WEIGHTS_NAME

CONFIGS = {"loha": LoHaConfig, "lokr": LoKrConfig}

FIRST_FACTORS = ("hada_w1_a", "lokr_w1", "lokr_w1_a")
"""Of a product of matrices: the one that is written with alpha / rank in it."""


class PeftLycoris:
    """LoHa (arXiv:2108.06098) or LoKr (arXiv:2309.14859) on the family's target modules."""

    def __init__(self, denoiser: nn.Module, family: Family, config: RunConfig) -> None:
        self.denoiser = denoiser
        alpha = config.lora_rank if config.lora_alpha is None else config.lora_alpha
        self.scale = alpha / config.lora_rank
        # Scaled and back, a number may be another in its last bit.
        self.is_saved_exactly = self.scale == 1
        torch.manual_seed(config.seed)
        settings = CONFIGS[config.lora_type](
            r=config.lora_rank, alpha=alpha, target_modules=list(family.lora_targets)
        )
        denoiser.add_adapter(settings)
        self.rank = config.lora_rank
        self.parameters = trained_parameters(denoiser)
        self.parameter_groups = [ParameterGroup("denoiser", self.parameters)]
        self._layers = [module for module in denoiser.modules() if isinstance(module, LycorisLayer)]

    def off(self) -> AbstractContextManager[nn.Module]:
        """The denoiser without its adapter."""
        return switched_off(self.denoiser, self._layers)

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """The adapter times `strength`."""
        return scaled(self._layers, strength)

    def save(self, folder: Path) -> None:
        """Write the weights under LyCORIS' names, which `create_lycoris_from_weights` reads.

        Alpha is written as the rank, so that the scale is 1: LyCORIS 4.1.3 takes no other for whole matrices.
        """
        weights: dict[str, Tensor] = {}
        for name, weight in get_peft_model_state_dict(self.denoiser).items():
            written = _written(name)
            weights[written] = (weight * self._share(name)).cpu().contiguous()
            weights[f"{written.rpartition('.')[0]}.alpha"] = torch.tensor(float(self.rank))
        save_file(weights, folder / WEIGHTS_NAME, {"format": "pt"})

    def load(self, file: Path) -> None:
        """Restore the weights that `save` wrote.

        Raises:
            ValueError: if the file does not fit this adapter.
        """
        stored = {name: weight for name, weight in load_file(file).items() if not name.endswith(".alpha")}
        own = get_peft_model_state_dict(self.denoiser)
        names = {name: _written(name) for name in own}
        num_fitting = sum(
            written in stored and stored[written].shape == own[name].shape for name, written in names.items()
        )
        if not num_fitting == len(own) == len(stored):
            raise ValueError(
                f"The adapter in {file.parent.name} does not fit this model and lora_rank: {num_fitting} of "
                f"its {len(stored)} weights fit, {len(own)} are needed. Start a new run instead."
            )
        weights = {name: stored[written] / self._share(name) for name, written in names.items()}
        set_peft_model_state_dict(self.denoiser, weights)

    def _share(self, name: str) -> float:
        """What a weight is multiplied by when it is written."""
        return self.scale if name.endswith(FIRST_FACTORS) else 1.0


def _written(name: str) -> str:
    """LyCORIS' name of a weight."""
    layer, _, factor = name.rpartition(".")
    return f"{LYCORIS_PREFIX}{layer.replace('.', '_')}.{factor}"
