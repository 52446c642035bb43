"""What the trainer needs to know of a family of base models."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from dreamspace.data.geometry import PhotoGeometry
from dreamspace.models.source import part_config

Conditioning = dict[str, Tensor]
"""What a prompt becomes, without the batch dimension: for example {"prompt_embeds": (L, D)}."""


class Family(Protocol):
    """What is particular to a family; `BaseModel` loads the parts of all families alike.

    Every `folder` is a model folder in diffusers' layout.
    """

    name: str
    pipeline_class: type
    """diffusers' pipeline, which encodes prompts and draws images."""
    scheduler_class: type
    """diffusers' scheduler of the training: DDPM's or the flow's."""
    denoiser_part: str
    """Subfolder of the part that is trained: "unet" or "transformer"."""
    text_parts: tuple[str, ...]
    """Subfolders that decide what a prompt becomes; a model may lack some."""
    vae_part: str | None
    """Subfolder of the autoencoder; None where the model draws pixels."""
    lora_targets: tuple[str, ...]
    """Names of the modules that an adapter is put on, as PEFT matches them."""
    noise_times: tuple[float, float]
    """The timesteps that the denoiser itself is told of a picture without noise, and of noise alone."""

    def multiple_px(self, folder: Path) -> int:
        """Width and height of a training picture must be multiples of this."""
        ...

    def native_resolution_px(self, folder: Path) -> int:
        """The resolution that the base model was trained for."""
        ...

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> list[Conditioning]:
        """What each prompt becomes.

        Args:
            pipeline: `pipeline_class` with the text parts alone.
        """
        ...

    def blank_prompt(self, folder: Path) -> Conditioning:
        """Conditioning of the length that a prompt usually has, all zeros, its masks ones."""
        ...

    def encode_image(self, vae: nn.Module, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to latents (B, C, h, w), scaled; the mode of the posterior."""
        ...

    def row_conditioning(self, geometry: PhotoGeometry, latents: Tensor, seed: int) -> Conditioning:
        """What the denoiser is told of a photo besides its caption; empty for most families.

        Args:
            latents: (C, h, w), of the photo.
            seed: of the row, for what is drawn anew in each step.
        """
        ...

    def predict(
        self, denoiser: nn.Module, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        """The denoiser's output for (B, C, h, w) latents and batched conditioning.

        Args:
            timesteps: (B,), DDPM's whole numbers or a flow's times in (0, 1].
        """
        ...

    def pipeline_inputs(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Any]:
        """Batched conditioning under the pipeline's argument names."""
        ...


@runtime_checkable
class PictureFamily(Protocol):
    """What a family has besides, if its pipeline draws from pictures, which it upscales or refines.

    The conditioning that is drawn from then holds one more entry, `picture`: pixels (3, H, W) in [-1, 1] of
    the size that is drawn.
    """

    strength: float
    """The share of the timesteps, from the one with the least noise on, that a picture goes through.

    Training draws from these alone.
    """


@runtime_checkable
class RenamedGuidanceFamily(Protocol):
    """What a family has besides, if its pipeline knows the guidance scale by another name."""

    guidance_argument: str


@runtime_checkable
class PackedFamily(Protocol):
    """What a family has besides, if its pipeline draws on latents that are packed into a row of tokens."""

    def unpacked(self, latents: Tensor, num_rows: int, num_columns: int) -> Tensor:
        """(B, rows x columns, D) to (B, C, h, w), as `encode_image` makes them."""
        ...


@runtime_checkable
class PromptVariantFamily(Protocol):
    """What a family has besides, if its models make different things of a prompt with the same text parts."""

    prompt_variant: str
    """Tells them apart."""


@runtime_checkable
class DistilledFamily(Protocol):
    """What a family has besides, if there are models of it that were distilled to draw in a few steps."""

    is_distilled: bool
    """Whether this one was."""


def is_distilled(family: Family) -> bool:
    """Whether this model of a family was distilled to draw in a few steps."""
    return isinstance(family, DistilledFamily) and family.is_distilled


USUAL_PROMPT_TOKENS = 64
"""Of a caption of some forty words, for encoders that fill none up."""

CLIP_TOKENS = 77
"""That CLIP's text encoders read of a prompt, whatever its length."""

DDPM_NOISE_TIMES = (0.0, 1000.0)
"""`Family.noise_times` where the denoiser is told DDPM's timesteps, or a flow's times 1000."""

FLOW_NOISE_TIMES = (0.0, 1.0)
"""The same where it is told a flow's."""

UNET_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
"""Attention and feed-forward of diffusers' UNets with cross-attention."""

JOINT_TARGETS = (
    *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
)
"""The same of transformers in which image and text attend to each other, in both of their streams."""


def num_trained_timesteps(family: Family, num_timesteps: int) -> int:
    """How many of a noise schedule's timesteps are trained, from the one with the least noise on."""
    return round(family.strength * num_timesteps) if isinstance(family, PictureFamily) else num_timesteps


def stack_conditioning(rows: list[Conditioning]) -> Conditioning:
    """Rows of conditioning to one batch: every entry gains a leading batch dimension.

    Shorter rows are filled up with zeros at their end; a family whose prompts differ in length keeps a mask.
    """
    return {
        name: nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True) for name in rows[0]
    }


def blank_masked_prompt(num_tokens: int, width: int) -> Conditioning:
    """A prompt of zeros with its mask; see `Family.blank_prompt`."""
    return {
        "prompt_embeds": torch.zeros(num_tokens, width),
        "prompt_mask": torch.ones(num_tokens, dtype=torch.bool),
    }


@torch.no_grad()
def encode_kl(vae: nn.Module, pixels: Tensor) -> Tensor:
    """The mode of the posterior of a VAE of diffusers' KL kind, shifted where it has a shift, and scaled."""
    latents = vae.encode(pixels).latent_dist.mode()
    return (latents - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor


def vae_multiple_px(folder: Path) -> int:
    """Pixels of a latent's edge in a VAE of diffusers' KL kind."""
    return 2 ** (len(part_config(folder, "vae")["block_out_channels"]) - 1)
