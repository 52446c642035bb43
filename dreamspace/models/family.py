"""What the trainer needs to know of a family of base models."""

from pathlib import Path
from typing import Any, Protocol

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


def stack_conditioning(rows: list[Conditioning]) -> Conditioning:
    """Rows of conditioning to one batch: every entry gains a leading batch dimension.

    Shorter rows are filled up with zeros at their end; a family whose prompts differ in length keeps a mask.
    """
    return {
        name: nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True) for name in rows[0]
    }


def vae_multiple_px(folder: Path) -> int:
    """Pixels of a latent's edge in a VAE of diffusers' KL kind."""
    return 2 ** (len(part_config(folder, "vae")["block_out_channels"]) - 1)
