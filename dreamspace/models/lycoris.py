"""LyCORIS' adapters, and the base model that is still there beneath.

Imported where it is asked for: LyCORIS imports quanto, which takes seconds.
"""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from lycoris import LycorisNetwork, create_lycoris_from_weights
from lycoris.logging import logger
from lycoris.modules.dylora import DyLoraModule
from lycoris.modules.full import FullModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from lycoris.wrapper import network_module_dict
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from dreamspace.config import RunConfig
from dreamspace.config.lycoris import TLORA_KEYS, LycorisConfig, LycorisPreset
from dreamspace.models.family import Family
from dreamspace.models.parameters import ParameterGroup, trained_parameters
from dreamspace.models.tlora import ActiveRanks, TLora, little_garbage
from dreamspace.run_folder import LYCORIS_PREFIX, WEIGHTS_NAME

logger.setLevel(logging.WARNING)


class Lycoris:
    """An adapter as LyCORIS (arXiv:2309.14859) builds it from `lycoris_config`.

    Its network is a part of the denoiser, so that it follows it to training mode and into several processes.
    """

    is_saved_exactly = False  # some algorithms write sums and differences of what they train

    def __init__(self, denoiser: nn.Module, family: Family, config: RunConfig) -> None:
        self.denoiser, self.settings = denoiser, config.lycoris_config or LycorisConfig()
        torch.manual_seed(config.seed)
        with little_garbage():
            self.network = _network(denoiser, family, self.settings)
        if not self.network.loras:
            raise ValueError(
                f"lycoris_config adapts no layer of this {family.name} model. Change target_module or "
                "target_name in its apply_preset, or leave apply_preset out."
            )
        self.network.apply_to()
        denoiser.add_module("lycoris", self.network)
        _follow_timesteps(
            denoiser, family, self.network, self.settings.tlora_min_rank, self.settings.tlora_alpha
        )
        self.network.requires_grad_(True)
        self.network.to(next(denoiser.parameters()).device)
        self.parameters = trained_parameters(self.network)
        self.parameter_groups = [ParameterGroup("denoiser", self.parameters)]
        # LyCORIS' full weights hold the base's in themselves, and would take them in once more at `apply_to`.
        self._whole = [layer for layer in self.network.loras if isinstance(layer, FullModule)]
        self._others = [layer for layer in self.network.loras if not isinstance(layer, FullModule)]

    @contextmanager
    def off(self) -> Iterator[nn.Module]:
        """The denoiser without its adapter, for the base model's own predictions."""
        for layer in self._whole:
            layer.multiplier = 0.0
        for layer in self._others:
            layer.restore()
        try:
            yield self.denoiser
        finally:
            for layer in self._others:
                layer.apply_to()
            for layer in self._whole:
                layer.multiplier = self.settings.multiplier

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """The adapter times `strength`."""
        return lycoris_at_strength(self.denoiser, strength)

    def save(self, folder: Path) -> None:
        """Write the weights under LyCORIS' names, which `create_lycoris_from_weights` reads."""
        metadata = {"format": "pt", "multiplier": str(self.settings.multiplier)}
        if "tlora" in self.settings.algos:
            metadata |= {key: str(getattr(self.settings, key)) for key in TLORA_KEYS}
        self.network.save_weights(str(folder / WEIGHTS_NAME), None, metadata)

    def load(self, file: Path) -> None:
        """Begin with the weights that `save` wrote, on a new adapter.

        Raises:
            ValueError: if the file does not fit this adapter, or LyCORIS cannot take its algorithm up again.
        """
        if "dylora" in self.settings.algos:
            raise ValueError("LyCORIS cannot take up a dylora adapter again. Choose another algo.")
        stored, own = load_file(file), self.network.state_dict()
        num_fitting = sum(name in stored and stored[name].shape == own[name].shape for name in own)
        if not num_fitting == len(own) == len(stored):
            raise ValueError(
                f"The adapter in {file.parent.name} does not fit this model and lycoris_config: "
                f"{num_fitting} of its {len(stored)} weights fit, {len(own)} are needed. Start a new run "
                "instead."
            )
        for name in own:
            if name.endswith(".alpha") and not torch.equal(own[name], stored[name]):
                raise ValueError(
                    f"The adapter in {file.parent.name} has alpha {stored[name].item():g}, and "
                    f"lycoris_config makes it {own[name].item():g}. Set linear_alpha to the adapter's own."
                )
        # tlora keeps what it started from beside what it trains, and writes only the latter.
        self.network.load_state_dict(stored, strict="tlora" not in self.settings.algos)


def load_lycoris(denoiser: nn.Module, family: Family, file: Path) -> None:
    """Put a LyCORIS adapter of a file on a denoiser, as its documentation does.

    Files of ours say how strongly they were trained, and of T-LoRA which ranks are active when; others are
    meant to be taken fully.

    Raises:
        ValueError: if it fits no layer.
    """
    weights = load_file(file)
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata() or {}
    multiplier = float(metadata.get("multiplier", 1.0))
    with little_garbage():
        network, _ = create_lycoris_from_weights(multiplier, "", denoiser, weights_sd=weights)
    names = {name.partition(".")[0] for name in weights}
    if len(network.loras) != len(names):
        raise ValueError(f"{len(network.loras)} of {len(names)} layers fit")
    network.apply_to()
    denoiser.add_module("lycoris", network)
    if all(key in metadata for key in TLORA_KEYS):
        min_rank, alpha = (float(metadata[key]) for key in TLORA_KEYS)
        _follow_timesteps(denoiser, family, network, round(min_rank), alpha)
    network.to(next(denoiser.parameters()).device).eval()


@contextmanager
def lycoris_at_strength(denoiser: nn.Module, strength: float) -> Iterator[None]:
    """The adapter on a denoiser, times `strength`."""
    network = denoiser.lycoris
    multiplier = network.multiplier
    network.set_multiplier(multiplier * strength)
    try:
        yield
    finally:
        network.set_multiplier(multiplier)


def merge_lycoris(denoiser: nn.Module) -> None:
    """Add the adapter that `load_lycoris` put on a denoiser to its weights, and take it off."""
    for layer in denoiser.lycoris.loras:
        layer.restore()
        # LyCORIS 4.1.3 scales what it merges of these two twice.
        share = 1 / layer.scale if isinstance(layer, LohaModule | LokrModule) else 1.0
        layer.merge_to(layer.multiplier * share)
    del denoiser.lycoris


def _ia3(kind: type[IA3Module], name: str, layer: nn.Module, weight: Tensor, on_input: Tensor) -> IA3Module:
    """LyCORIS 4.1.3 hands these values to a function that takes one less, and forgets the last."""
    module = kind(name, layer, train_on_input=bool(on_input))
    module.weight.data.copy_(weight)
    return module


class _DyLora(DyLoraModule):
    """LyCORIS' DyLoRA, which draws images with all of its ranks, and whose file has its true scale.

    LyCORIS 4.1.3 draws a rank in evaluation, too, and divides alpha by the blocks it uses while it writes a
    file for loaders that divide by the rank.
    """

    def get_random_rank_weight(self) -> tuple[Tensor, Tensor, Tensor]:
        """The weights of as many blocks as are drawn, or in evaluation of all, and their scale."""
        if self.training:
            return super().get_random_rank_weight()
        return self.get_weight((self.block_count - 1) * self.block_size)

    def custom_state_dict(self) -> dict[str, Tensor]:
        """What LyCORIS writes of a layer."""
        return super().custom_state_dict() | {"alpha": self.alpha * self.block_size}


network_module_dict["dylora"] = _DyLora
IA3Module.make_module_from_state_dict = classmethod(_ia3)


def _follow_timesteps(
    denoiser: nn.Module, family: Family, network: LycorisNetwork, min_rank: int, alpha: float
) -> None:
    """Have the T-LoRA layers of a network, where it has any, mask their ranks by the denoiser's timesteps."""
    layers = [layer for layer in network.loras if isinstance(layer, TLora)]
    if layers:
        ranks = ActiveRanks(min_rank, alpha)
        ranks.follow(denoiser, family)
        for layer in layers:
            layer.ranks = ranks


def _network(denoiser: nn.Module, family: Family, settings: LycorisConfig) -> Any:
    LycorisNetwork.apply_preset(_preset(settings.apply_preset, family))
    return LycorisNetwork(
        denoiser,
        multiplier=settings.multiplier,
        lora_dim=settings.linear_dim,
        alpha=settings.linear_alpha,
        conv_lora_dim=settings.conv_dim or settings.linear_dim,
        conv_alpha=settings.conv_alpha or settings.linear_alpha,
        dropout=settings.dropout,
        rank_dropout=settings.rank_dropout,
        module_dropout=settings.module_dropout,
        use_tucker=settings.use_tucker,
        use_scalar=settings.use_scalar,
        network_module=settings.algo,
        decompose_both=settings.decompose_both,
        factor=settings.factor,
        block_size=settings.block_size,
        constraint=settings.constraint,
        rescaled=settings.rescaled,
        weight_decompose=settings.dora_wd,
        wd_on_out=settings.wd_on_output,
        full_matrix=settings.full_matrix,
        # Unless a layer is of another class than torch's own, as all quantised ones are.
        bypass_mode=None,
        warn_on_unmatched=False,
    )


def _patterns(family: Family) -> list[str]:
    """Of the modules with these names, whole or at the end."""
    return [pattern for name in family.lora_targets for pattern in (name, f"*.{name}")]


def _preset(preset: LycorisPreset, family: Family) -> dict[str, Any]:
    """All that LyCORIS keeps in its class, so that nothing of an earlier adapter stays.

    Without a target it takes what the family's LoRA adapts.
    """
    names = preset.target_name or []
    has_target = preset.target_module or names or preset.module_algo_map or preset.name_algo_map
    return {
        "enable_conv": True,
        "target_module": preset.target_module or [],
        "target_name": names if has_target else _patterns(family),
        "module_algo_map": preset.module_algo_map,
        "name_algo_map": preset.name_algo_map,
        "use_fnmatch": True,
        "exclude_name": [],
        "lora_prefix": LYCORIS_PREFIX.rstrip("_"),
    }
