"""What the trainer needs to know of a family of base models."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Conditioning = dict[str, Tensor]
"""What a prompt becomes, without the batch dimension: for example {"prompt_embeds": (L, D)}."""


class Family(Protocol):
    """A family loads its parts one at a time, so that only what is needed is in memory.

    Every `folder` is a model folder in diffusers' layout; parts are loaded from safetensors alone.
    """

    name: str
    parts: tuple[str, ...]
    """Subfolders of a model that are read; some it may lack."""
    denoiser_part: str
    """Subfolder of the model that is trained, `unet` for example."""
    text_parts: tuple[str, ...]
    """Subfolders of the text encoders, whose weights decide what a prompt becomes."""
    lora_targets: tuple[str, ...]
    """Names of the modules that an adapter is put on, as PEFT matches them."""

    def multiple_px(self, folder: Path) -> int:
        """Width and height of a training picture must be multiples of this."""
        ...

    def native_resolution_px(self, folder: Path) -> int:
        """The resolution that the base model was trained for."""
        ...

    def load_text_encoders(self, folder: Path, device: torch.device) -> Any: ...

    def encode_prompts(self, text_encoders: Any, prompts: list[str]) -> list[Conditioning]: ...

    def load_vae(self, folder: Path, device: torch.device) -> nn.Module: ...

    def encode_image(self, vae: nn.Module, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to latents (B, C, h, w), scaled; the mode of the posterior."""
        ...

    def load_denoiser(self, folder: Path, device: torch.device) -> nn.Module:
        """The denoiser in fp32, frozen."""
        ...

    def noise_scheduler(self, folder: Path) -> Any:
        """diffusers' training scheduler with the base model's own noise schedule."""
        ...

    def predict(
        self, denoiser: nn.Module, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        """The denoiser's output for (B, C, h, w) latents, (B,) timesteps and batched conditioning."""
        ...

    def pipeline(self, folder: Path, denoiser: nn.Module, vae: nn.Module) -> Any:
        """The stock pipeline without text encoders, which samples from cached conditioning."""
        ...

    def pipeline_inputs(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Tensor]:
        """Batched conditioning under the pipeline's argument names."""
        ...

    def save_adapter(self, denoiser: nn.Module, folder: Path) -> None:
        """Write the adapter as `pytorch_lora_weights.safetensors`, its alpha included."""
        ...


def stack_conditioning(rows: list[Conditioning]) -> Conditioning:
    """Rows of conditioning to one batch: every entry gains a leading batch dimension."""
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
