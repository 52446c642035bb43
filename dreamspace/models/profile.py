"""The profile of a base model, measured on tensors that have a shape and no values.

Its parts are made from their configs alone, and a training step of the family's own `predict` runs on them.
What is alive at each moment is counted, and nothing is computed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils.flop_counter import FlopCounterMode

from dreamspace.config import RunConfig
from dreamspace.data.geometry import GeometryRules, plan_geometry
from dreamspace.estimate.profiles import (
    Format,
    ModelProfile,
    PartProfile,
    SizeProfile,
    TrainingPeak,
    profile_file,
)
from dreamspace.files import read_json, write_json
from dreamspace.models import load_family
from dreamspace.models.family import Conditioning, Family, stack_conditioning
from dreamspace.models.live_bytes import Known, LiveBytes, highest_moments, imagined
from dreamspace.models.lora import Lora
from dreamspace.models.offloading import blocks
from dreamspace.models.precision import quantised_layers
from dreamspace.models.source import INDEX_FILE, model_folder, part_config

FORMATS: dict[Format, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}
MEASURED: tuple[tuple[Any, Format], ...] = (("lora", "bf16"), ("lora", "fp32"), ("full", "fp32"))
"""Kinds of training that are measured with the small pictures, with gradient checkpointing and without.

With the large ones it is the first alone, and the others grow as that does. Of the whole model in bf16, the
activations are in the ratio of LoRA's two.
"""

DEPTHS = ("num_layers", "num_single_layers", "n_layers", "transformer_layers_per_block")
"""Settings of how many blocks of one kind follow each other in a denoiser."""

FEW, MANY = 2, 5
"""Of so many blocks or more, few are measured, and what one more of its kind adds."""

Numbers = dict[tuple[Any, ...], tuple[float, ...]]
"""What is measured, by what it is of. With each block it grows by the same."""


def model_profile(config: RunConfig, folder: Path) -> ModelProfile:
    """Measure a model by the configs in its folder; no weights are read.

    Args:
        config: names the family.
    """
    model = _Model(load_family(config, folder), folder, read_json(folder / INDEX_FILE))
    family = model.family
    native_px, multiple_px = family.native_resolution_px(folder), family.multiple_px(folder)
    half_px = max(multiple_px, native_px // 2 // multiple_px * multiple_px)
    lora = Lora(model.part(family.denoiser_part), family, RunConfig())
    trained = dict(lora.denoiser.named_parameters())
    sizes, num_operations = _sizes(model, (half_px, native_px))
    return ModelProfile(
        family=config.model_family,
        native_resolution_px=native_px,
        multiple_px=multiple_px,
        denoiser=family.denoiser_part,
        vae=family.vae_part,
        parts={name: _counted(model.part(name)) for name in model.weighty_parts},
        adapter_per_rank=sum(parameter.numel() for parameter in lora.parameters) // RunConfig().lora_rank,
        adapter_outputs=sum(len(weight) for name, weight in trained.items() if "lora_B" in name),
        prompt_tokens=len(family.blank_prompt(folder)["prompt_embeds"]),
        num_operations=num_operations,
        sizes=sizes,
    )


@dataclass(frozen=True)
class _Model:
    """A family and the configs of a model of it."""

    family: Family
    folder: Path
    index: dict[str, Any]

    @property
    def weighty_parts(self) -> list[str]:
        """Names of the parts that have weights: text encoders, denoiser, VAE."""
        wanted = {self.family.denoiser_part, self.family.vae_part, *self.family.text_parts}
        return [
            name
            for name, entry in self.index.items()
            if name in wanted and entry[0] is not None and "tokenizer" not in name
        ]

    def part(self, name: str, config: dict[str, Any] | None = None) -> nn.Module:
        """A part without values, on the meta device; of its own config if none is given."""
        library, class_name = self.index[name]
        config = config or part_config(self.folder, name)
        with torch.device("meta"):
            if library == "diffusers":
                return getattr(diffusers, class_name).from_config(config).requires_grad_(False)
            module_class = getattr(transformers, class_name)
            return module_class(module_class.config_class.from_dict(config)).requires_grad_(False)


def _counted(part: nn.Module) -> PartProfile:
    layers = [layer for _, layer in quantised_layers(part, "int8-quanto", torch.float32)]
    linear = sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear))
    convolution = sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Conv2d))
    total = sum(parameter.numel() for parameter in part.parameters())
    found = blocks(part) if part._no_split_modules else []
    sizes = [sum(parameter.numel() for parameter in block.parameters()) for block in found]
    return PartProfile(
        linear=linear,
        convolution=convolution,
        rest=total - linear - convolution,
        largest_layer=max((layer.weight.numel() for layer in layers), default=0),
        in_blocks=sum(sizes),
        largest_block=max(sizes, default=0),
        buffers=sum(buffer.numel() for buffer in part.buffers()),
    )


def _sizes(model: _Model, edges_px: tuple[int, int]) -> tuple[tuple[SizeProfile, ...], int]:
    """One row of pictures of either edge, and how many operations a step is."""
    steps = [_Step(model, edge) for edge in edges_px]
    vae = [step.encoding_and_decoding() for step in steps]
    config, deeper = shallow(part_config(model.folder, model.family.denoiser_part))
    few = _numbers(steps, config)
    numbers = dict(few)
    for with_block, num_blocks in deeper:
        for key, values in _numbers(steps, with_block).items():
            added = [num_blocks * (more - less) for more, less in zip(values, few[key], strict=True)]
            numbers[key] = tuple(map(sum, zip(numbers[key], added, strict=True)))
    sizes = tuple(
        SizeProfile(
            width_px=step.edge_px,
            height_px=step.edge_px,
            forward_flops=round(numbers["forward", step.edge_px, "bf16"][1]),
            forward_bytes={
                name: round(numbers["forward", step.edge_px, "bf16"][0] * ratio)
                for name, ratio in (("bf16", 1), ("fp32", 2))
            },
            **found,
            training=_peaks(numbers, step.edge_px, edges_px[0]),
        )
        for step, found in zip(steps, vae, strict=True)
    )
    return sizes, round(numbers["operations",][0])


def shallow(config: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[dict[str, Any], int]]]:
    """A denoiser's config with few blocks of each kind, and for each kind one with a block more.

    The latter come with the number of blocks of this kind that are left out. Blocks of one kind are alike,
    unless `dual_attention_layers` tells them apart.
    """
    depths = {name: config[name] for name in DEPTHS if name in config}
    found = {name: max(depth) if isinstance(depth, list) else depth for name, depth in depths.items()}
    cut = {name: depth for name, depth in found.items() if depth >= MANY}
    if config.get("dual_attention_layers"):
        cut = {}

    def with_depth(name: str, depth: int) -> Any:
        if isinstance(config[name], list):
            return [depth if of_level == found[name] else of_level for of_level in config[name]]
        return depth

    few = config | {name: with_depth(name, FEW) for name in cut}
    return few, [(few | {name: with_depth(name, FEW + 1)}, depth - FEW) for name, depth in cut.items()]


def _numbers(steps: list["_Step"], config: dict[str, Any]) -> Numbers:
    """Everything about a denoiser with this config."""
    small, large = steps
    found: Numbers = {}
    for checkpointing in (False, True):
        for model_type, name in MEASURED:
            history = small.training(config, model_type, name, checkpointing)
            found["training", small.edge_px, model_type, name, checkpointing] = highest_moments(history)
            if (model_type, name, checkpointing) == ("lora", "bf16", False):
                found["operations",] = (len(history),)
        history = large.training(config, "lora", "bf16", checkpointing)
        found["training", large.edge_px, "lora", "bf16", checkpointing] = highest_moments(history)
    for step in steps:
        found["forward", step.edge_px, "bf16"] = step.forward(config)
    return found


def _peaks(numbers: Numbers, edge_px: int, small_px: int) -> tuple[TrainingPeak, ...]:
    """The peaks of all kinds of training, from those that were measured."""
    peaks = []
    for checkpointing in (False, True):

        def moments(edge: int, *kind: str, last: bool = checkpointing) -> tuple[float, ...]:
            return numbers["training", edge, *kind, last]

        lora = moments(small_px, "lora", "bf16")
        growth = moments(edge_px, "lora", "bf16")[0] / lora[0]
        share = lora[0] / moments(small_px, "lora", "fp32")[0]
        whole = moments(small_px, "full", "fp32")
        # Autocast keeps a copy of each weight for the backward pass.
        copies = max(whole[1::2]) / 2
        found = {
            ("lora", "bf16"): moments(edge_px, "lora", "bf16"),
            ("lora", "fp32"): _grown(moments(small_px, "lora", "fp32"), growth),
            ("full", "bf16"): _grown(whole, growth * share, copies),
            ("full", "fp32"): _grown(whole, growth),
        }
        for (model_type, name), values in found.items():
            lines = tuple((round(values[i]), round(values[i + 1])) for i in range(0, len(values), 2))
            peaks.append(TrainingPeak(model_type, name, checkpointing, lines))
    return tuple(peaks)


def _grown(moments: tuple[float, ...], growth: float, more: float = 0) -> tuple[float, ...]:
    """Moments of (bytes a row, bytes besides), the former times `growth`."""
    return tuple(value * growth if i % 2 == 0 else value + more for i, value in enumerate(moments))


class _Step:
    """What a picture of one size goes through: VAE and denoiser.

    Attributes:
        latents: without values, as the denoiser knows them.
    """

    def __init__(self, model: _Model, edge_px: int) -> None:
        self.model, self.family, self.edge_px = model, model.family, edge_px
        self.latents = torch.empty(1, 3, edge_px, edge_px, device="meta")

    def encoding_and_decoding(self) -> dict[str, Any]:
        """Memory and FLOPs of making latents of a picture, and a picture of latents."""
        if self.family.vae_part is None:
            nothing = dict.fromkeys(FORMATS, 0)
            return {"encode_bytes": 0, "encode_flops": 0, "decode_bytes": nothing, "decode_flops": 0}
        part, encoded = self.model.part(self.family.vae_part).eval(), []
        with FakeTensorMode(allow_non_fake_inputs=True):
            vae = imagined(part, torch.float32)
            plain = vae.encode

            def encode(pixels: Tensor) -> Any:
                output = plain(pixels)
                latents = output.latent_dist.mode() if "latent_dist" in output else output.latent
                encoded.append(latents.shape)
                return output

            vae.encode = encode
            pixels = torch.zeros(1, 3, self.edge_px, self.edge_px)
            with torch.no_grad(), FlopCounterMode(display=False) as flops, LiveBytes(vae) as live:
                latents = self.family.encode_image(vae, pixels)
            found = {"encode_bytes": live.peak, "encode_flops": flops.get_total_flops(), "decode_bytes": {}}
            self.latents = torch.empty(latents.shape, device="meta")
            for name, dtype in FORMATS.items():
                vae = imagined(part, dtype)
                latents = torch.zeros(encoded[0], dtype=dtype)
                with torch.no_grad(), FlopCounterMode(display=False) as flops, LiveBytes(vae) as live:
                    vae.decode(latents)
                found["decode_bytes"][name] = live.peak
        return found | {"decode_flops": flops.get_total_flops()}

    def forward(self, config: dict[str, Any]) -> tuple[float, float]:
        """Memory and FLOPs of a prediction in bf16 without gradients."""
        denoiser = self._denoiser(config, "lora", False)
        with FakeTensorMode(allow_non_fake_inputs=True):
            denoiser = imagined(denoiser, torch.bfloat16)
            with torch.no_grad(), FlopCounterMode(display=False) as flops, LiveBytes(denoiser) as live:
                self._predict(denoiser, "bf16")
        return live.peak, flops.get_total_flops()

    def training(
        self, config: dict[str, Any], model_type: str, number_format: Format, gradient_checkpointing: bool
    ) -> list[tuple[int, int]]:
        """Memory over a forward and a backward pass; see `LiveBytes.history`."""
        dtype = torch.float32 if model_type == "full" else FORMATS[number_format]
        denoiser = self._denoiser(config, model_type, gradient_checkpointing)
        with FakeTensorMode(allow_non_fake_inputs=True):
            denoiser = imagined(denoiser, dtype)
            with LiveBytes(denoiser) as live:
                self._predict(denoiser, number_format).float().square().mean().backward()
        return live.history

    def _denoiser(self, config: dict[str, Any], model_type: str, gradient_checkpointing: bool) -> nn.Module:
        part = self.model.part(self.family.denoiser_part, config)
        if model_type == "full":
            part.requires_grad_(True)
        else:
            part = Lora(part, self.family, RunConfig()).denoiser
        if gradient_checkpointing:
            part.enable_gradient_checkpointing()
        return part.train()

    def _predict(self, denoiser: nn.Module, number_format: Format) -> Tensor:
        family, folder, edge_px = self.family, self.model.folder, self.edge_px
        rules = GeometryRules(edge_px, "pixel")
        geometry = plan_geometry(edge_px, edge_px, rules, family.multiple_px(folder))
        with unset_fake_temporarily():
            row = family.blank_prompt(folder)
            row |= family.row_conditioning(geometry, torch.zeros(self.latents.shape[1:]), 0)
            conditioning = stack_conditioning([row])
        given: Conditioning = {
            name: value.as_subclass(Known) if value.dtype == torch.bool else torch.zeros(value.shape)
            for name, value in conditioning.items()
        }
        is_flow = issubclass(family.scheduler_class, diffusers.FlowMatchEulerDiscreteScheduler)
        timesteps = torch.tensor([0.5]) if is_flow else torch.tensor([10])
        with torch.autocast("cpu", torch.bfloat16, enabled=number_format == "bf16"):
            return family.predict(denoiser, torch.zeros(self.latents.shape), timesteps, given)


def measured_profile(config: RunConfig, cache: Path) -> ModelProfile:
    """The profile of a model that is here, measured once for each architecture.

    Raises:
        ValueError: if there is no such model.
    """
    folder = model_folder(config.pretrained_model_name_or_path)
    path = profile_file(config, folder, cache)
    if not path.is_file():
        write_json(path, model_profile(config, folder).to_json())
    return ModelProfile.from_json(read_json(path))
