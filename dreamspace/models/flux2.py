"""FLUX.2 klein: a Qwen3 text encoder, and a transformer on latents in patches of two by two."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline
from torch import Tensor, nn

from dreamspace.config.sections import ModelSettings
from dreamspace.data.geometry import PhotoGeometry
from dreamspace.files import read_json
from dreamspace.models.device import sent
from dreamspace.models.family import FLOW_NOISE_TIMES, Conditioning, vae_multiple_px
from dreamspace.models.source import INDEX_FILE, part_config

PATCH_SIZE = 2
"""Edge of the squares of the autoencoder's latents that become the channels of one latent."""

SAMPLE_SIZE = 128
"""The edge in the autoencoder's latents of what the pipeline draws unless it is told otherwise."""

MAX_PROMPT_TOKENS = 512
"""To which the pipeline fills up every prompt."""


def family(settings: ModelSettings, folder: Path) -> "Flux2Klein":
    """They differ in the number of their layers, and the base models were not distilled."""
    is_distilled = read_json(folder / INDEX_FILE).get("is_distilled", False)
    return Flux2Klein(part_config(folder, "transformer")["num_single_layers"], is_distilled)


class Flux2Klein:
    """The klein models (https://bfl.ai/blog/flux2-klein-towards-interactive-visual-intelligence).

    Its latents are patches of the autoencoder's, each channel made even by what the autoencoder's batch norm
    learned of its mean and variance.

    Args:
        num_single_layers: of the transformer, whose last projections have the name of lists in other layers.
        is_distilled: to draw in four steps, without guidance, which the pipeline then ignores.
    """

    name = "flux2"
    pipeline_class = Flux2KleinPipeline
    scheduler_class = FlowMatchEulerDiscreteScheduler
    denoiser_part = "transformer"
    text_parts = ("tokenizer", "text_encoder")
    vae_part = "vae"
    noise_times = FLOW_NOISE_TIMES

    def __init__(self, num_single_layers: int, is_distilled: bool) -> None:
        self.lora_targets = (
            *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
            *("linear_in", "linear_out", "to_qkv_mlp_proj"),
            *(f"single_transformer_blocks.{layer}.attn.to_out" for layer in range(num_single_layers)),
        )
        self.is_distilled = is_distilled

    def multiple_px(self, folder: Path) -> int:
        return vae_multiple_px(folder) * PATCH_SIZE

    def native_resolution_px(self, folder: Path) -> int:
        return vae_multiple_px(folder) * SAMPLE_SIZE

    def encode_prompts(self, pipeline: Flux2KleinPipeline, prompts: list[str]) -> list[Conditioning]:
        # One after the other: the logits that the encoder makes as well take 20 times what its embeddings do.
        return [{"prompt_embeds": pipeline.encode_prompt(prompt)[0][0]} for prompt in prompts]

    def blank_prompt(self, folder: Path) -> Conditioning:
        width = part_config(folder, "transformer")["joint_attention_dim"]
        return {"prompt_embeds": torch.zeros(MAX_PROMPT_TOKENS, width)}

    @torch.no_grad()
    def encode_image(self, vae: AutoencoderKLFlux2, pixels: Tensor) -> Tensor:
        latents = Flux2KleinPipeline._patchify_latents(vae.encode(pixels).latent_dist.mode())
        mean = vae.bn.running_mean.view(1, -1, 1, 1)
        variance = vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps
        return (latents - mean) / variance.sqrt()

    def row_conditioning(self, geometry: PhotoGeometry, latents: Tensor, seed: int) -> Conditioning:
        return {}

    def predict(
        self, denoiser: nn.Module, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        embeds, device = conditioning["prompt_embeds"], noisy_latents.device
        output = denoiser(
            hidden_states=Flux2KleinPipeline._pack_latents(noisy_latents),
            encoder_hidden_states=embeds,
            timestep=timesteps,
            guidance=None,
            img_ids=sent(Flux2KleinPipeline._prepare_latent_ids(noisy_latents), device),
            txt_ids=sent(Flux2KleinPipeline._prepare_text_ids(embeds), device),
            return_dict=False,
        )[0]
        return self.unpacked(output, *noisy_latents.shape[-2:])

    def unpacked(self, latents: Tensor, num_rows: int, num_columns: int) -> Tensor:
        return latents.transpose(1, 2).unflatten(2, (num_rows, num_columns))

    def pipeline_inputs(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Any]:
        return {
            "prompt_embeds": conditioning["prompt_embeds"],
            "negative_prompt_embeds": negative["prompt_embeds"],
        }
