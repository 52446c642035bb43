"""Random denoisers of the families whose steps are measured: wide with few layers, or of their real shape."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from torch import Tensor, nn

from dreamspace.config import RunConfig
from dreamspace.mini.parts import noise_schedule as mini_noise
from dreamspace.models.base import open_model
from dreamspace.models.family import Conditioning, Family
from dreamspace.models.flux import Flux
from dreamspace.models.sd1x import StableDiffusion
from dreamspace.models.sd3 import StableDiffusion3
from dreamspace.models.sdxl import StableDiffusionXL

TOKENS = 77


@dataclass(frozen=True)
class Modules:
    """What a step needs of a base model.

    Attributes:
        channels: of the latents.
        conditioning: of a caption, as it is cached.
        bare_inputs: the denoiser's arguments besides latents and timesteps in a loop written for this model
            alone, from batched conditioning and the edge of the latents.
        is_packed: whether such a loop keeps its latents as (B, tokens, 4 C).
        time_scale: what a flow's times are multiplied by for the denoiser.
    """

    family: Family
    denoiser: nn.Module
    channels: int
    conditioning: Conditioning
    bare_inputs: Callable[[Conditioning, int], dict[str, Any]]
    is_packed: bool = False
    time_scale: float = 1.0
    scheduler: Any = field(default_factory=lambda: DDPMScheduler(**mini_noise()))


def text_alone(conditioning: Conditioning, edge: int) -> dict[str, Any]:
    """Of SD 1.x and 2.x."""
    return {"encoder_hidden_states": conditioning["prompt_embeds"]}


def text_and_pooled(conditioning: Conditioning, edge: int) -> dict[str, Any]:
    """Of SD 3."""
    return text_alone(conditioning, edge) | {"pooled_projections": conditioning["pooled_prompt_embeds"]}


def text_and_sizes(conditioning: Conditioning, edge: int) -> dict[str, Any]:
    """Of SDXL: every photo is whole."""
    embeds = conditioning["pooled_prompt_embeds"]
    sizes = torch.tensor([edge * 8.0, edge * 8, 0, 0, edge * 8, edge * 8], device=embeds.device)
    added = {"text_embeds": embeds, "time_ids": sizes.expand(len(embeds), 6)}
    return text_alone(conditioning, edge) | {"added_cond_kwargs": added}


def text_and_positions(conditioning: Conditioning, edge: int) -> dict[str, Any]:
    """Of FLUX dev, told guidance 1."""
    embeds = conditioning["prompt_embeds"]
    places = torch.arange(edge // 2, device=embeds.device, dtype=embeds.dtype)
    image = torch.stack(
        [torch.zeros_like(places[:, None] + places), *torch.meshgrid(places, places, indexing="ij")], dim=-1
    )
    return text_and_pooled(conditioning, edge) | {
        "img_ids": image.flatten(0, 1),
        "txt_ids": embeds.new_zeros(embeds.shape[1], 3),
        "guidance": torch.ones(len(embeds), device=embeds.device),
    }


def random_sd1x() -> Modules:
    """35 M parameters in Stable Diffusion 1.5's shape."""
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(64, 128, 256, 256),
        layers_per_block=2,
        cross_attention_dim=256,
        attention_head_dim=8,
    )
    return Modules(StableDiffusion(), unet, 4, {"prompt_embeds": torch.randn(TOKENS, 256)}, text_alone)


def random_sdxl(
    widths: tuple[int, int, int] = (64, 128, 256),
    layers: tuple[int, int, int] = (1, 1, 4),
    text_width: int = 512,
    pooled_width: int = 320,
) -> Modules:
    """An SDXL of these widths, with heads of 32 or (from 320 on) 64 channels as it has them."""
    head_width = 64 if widths[0] >= 320 else 32
    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        transformer_layers_per_block=layers,
        # diffusers takes the number of heads under this name.
        attention_head_dim=tuple(width // head_width for width in widths),
        cross_attention_dim=text_width,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=pooled_width + 6 * 256,
    )
    conditioning = {
        "prompt_embeds": torch.randn(TOKENS, text_width),
        "pooled_prompt_embeds": torch.randn(pooled_width),
    }
    return Modules(StableDiffusionXL(True), unet, 4, conditioning, text_and_sizes)


def full_size_sdxl() -> Modules:
    """The 2.6 G parameters of SDXL's base, random."""
    return random_sdxl((320, 640, 1280), (1, 2, 10), text_width=2048, pooled_width=1280)


def random_sd3() -> Modules:
    """Six layers of 384 channels, as 3.0 has them."""
    transformer = SD3Transformer2DModel(
        sample_size=32,
        num_layers=6,
        num_attention_heads=6,
        attention_head_dim=64,
        joint_attention_dim=512,
        caption_projection_dim=384,
        pooled_projection_dim=256,
        pos_embed_max_size=64,
        out_channels=16,
    )
    conditioning = {"prompt_embeds": torch.randn(TOKENS, 512), "pooled_prompt_embeds": torch.randn(256)}
    return Modules(
        StableDiffusion3(512),
        transformer,
        16,
        conditioning,
        text_and_pooled,
        time_scale=1000.0,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def random_flux() -> Modules:
    """Two double and four single layers of 384 channels, as dev has them."""
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=4,
        num_attention_heads=3,
        attention_head_dim=128,
        joint_attention_dim=512,
        pooled_projection_dim=256,
        guidance_embeds=True,
    )
    conditioning = {"prompt_embeds": torch.randn(TOKENS, 512), "pooled_prompt_embeds": torch.randn(256)}
    return Modules(
        Flux(True),
        transformer,
        16,
        conditioning,
        text_and_positions,
        is_packed=True,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )


FAMILIES: dict[str, Callable[[], Modules]] = {
    "sd1x": random_sd1x,
    "sdxl": random_sdxl,
    "sd3": random_sd3,
    "flux": random_flux,
}


def seeded(build: Callable[[], Modules], device: torch.device, dtype: torch.dtype = torch.float32) -> Modules:
    """The same random modules each time, frozen, on a device."""
    torch.manual_seed(0)
    # Where they will stay: the full size takes 10 GB in fp32.
    with device:
        modules = build()
    modules.denoiser.requires_grad_(False)
    if dtype != torch.float32:
        modules.denoiser.to(dtype)
    cached = {name: row.to("cpu", dtype) for name, row in modules.conditioning.items()}
    return replace(modules, conditioning=cached)


def batched(modules: Modules, batch_size: int, device: torch.device) -> dict[str, Tensor]:
    """The conditioning of so many rows, on the device."""
    return {name: row.to(device).expand(batch_size, *row.shape) for name, row in modules.conditioning.items()}


def mini() -> Modules:
    """The embedded model."""
    unet = open_model(RunConfig(), Path("unused"), torch.device("cpu")).load_denoiser()
    width = unet.config.cross_attention_dim
    return Modules(StableDiffusion(), unet, 4, {"prompt_embeds": torch.randn(TOKENS, width)}, text_alone)
