"""Write mini as a stock model folder: fp16 safetensors in diffusers' layout."""

import shutil
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor, nn

from dreamspace.files import replace_file, write_json
from dreamspace.mini.parts import CLIP_CONFIG, CLIP_PREPROCESS, load_tokenizer, noise_schedule
from dreamspace.mini.words import caption_words
from dreamspace.mini.world import COLOURS, PATTERNS


def sampling_scheduler() -> DPMSolverMultistepScheduler:
    """DPM-Solver++ of second order, which draws well in 20 steps; training reads its noise schedule alone."""
    return DPMSolverMultistepScheduler(**noise_schedule(), timestep_spacing="trailing", steps_offset=1)


def latent_scale(latents: Tensor) -> float:
    """The scaling factor that gives latents unit variance, as `AutoencoderKL` keeps it."""
    return round(1 / latents.float().std().item(), 5)


def draw_unused_tokens(text_encoder: nn.Module, tokenizer, spread: float = 0.7) -> None:
    """Give tokens that no training caption holds embeddings like those of adjectives, in place.

    Training teaches the encoder to pass over what it never sees, so that "sks dog" and "dog" would become
    the same to the denoiser, and no adapter could tell them apart. Each such token is drawn from the spread
    of the colour and pattern words instead: as in a large CLIP, a rare word is a word too, with an arbitrary
    look.
    """
    used = {index for word in caption_words() for index in tokenizer(word).input_ids}
    adjectives = [*COLOURS, *(word for word in PATTERNS.values() if word)]
    known = [tokenizer(word, add_special_tokens=False).input_ids[0] for word in adjectives]
    embeddings = text_encoder.get_input_embeddings().weight
    unused = [index for index in range(len(embeddings)) if index not in used]
    with torch.no_grad():
        mean = embeddings[known].mean(dim=0)
        weights = torch.randn(len(unused), len(known), generator=torch.Generator().manual_seed(0))
        looks = weights.to(mean.device) @ (embeddings[known] - mean) / len(known) ** 0.5
        embeddings[unused] = mean + spread * looks


def export_pipeline(
    vae: nn.Module, unet: nn.Module, text_encoder: nn.Module, tokenizer_folder: Path, out: Path
) -> None:
    """Write the `StableDiffusionPipeline`; the modules are turned to fp16 in place."""
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=text_encoder.half(),
        tokenizer=load_tokenizer(tokenizer_folder),
        unet=unet.half(),
        scheduler=sampling_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out, safe_serialization=True)


def export_clip(clip: nn.Module, tokenizer_folder: Path, out: Path) -> None:
    """Write an open_clip folder, which `open_clip.create_model_from_pretrained("local-dir:...")` loads."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().cpu().to(torch.float16).contiguous()
        for name, tensor in clip.state_dict().items()
    }
    with replace_file(out / "open_clip_model.safetensors") as temporary:
        save_file(weights, temporary)
    write_json(out / "open_clip_config.json", {"model_cfg": CLIP_CONFIG, "preprocess_cfg": CLIP_PREPROCESS})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer_folder / name, out / name)


def export_tiny_vae(tiny_vae: nn.Module, out: Path) -> None:
    tiny_vae.half().save_pretrained(out, safe_serialization=True)
