"""The quality of mini's weights, measured against the figures that they are held to."""

import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from dreamspace.evaluation.clip import Clip
from dreamspace.files import write_json
from dreamspace.mini.attributes import accuracy
from dreamspace.mini.recipe import save_grid, to_pixels
from dreamspace.mini.renders import HELD_OUT_SEED, draw, held_out_sceneries

NUM_RENDERS = 400
NUM_CAPTIONS = 200
TARGETS = {
    "largest file (MB)": ("<=", 15), "all files (MB)": ("<=", 40),
    "VAE PSNR (dB)": (">=", 26), "VAE PSNR, worst scene (dB)": (">=", 24),
    "tiny VAE below VAE (dB)": ("<=", 2),
    "CLIP on renders: class_word": (">=", 0.97), "CLIP on renders: scene": (">=", 0.97),
    "CLIP on renders: colour": (">=", 0.95), "CLIP on renders: pattern": (">=", 0.95),
    "generated: class_word": (">=", 0.85), "generated: colour": (">=", 0.80),
    "generated: pattern": (">=", 0.70), "generated: scene": (">=", 0.90),
    "seconds an image (20 steps)": ("<=", 1.0),
}  # fmt: skip


def measure(model: Path, out: Path | None) -> dict[str, float]:
    """Measure everything and print it beside its target; `out` gets `report.json` and `samples.png`."""
    sceneries = held_out_sceneries(NUM_RENDERS)
    renders = draw(sceneries, HELD_OUT_SEED)
    pipeline = StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    tiny_vae = AutoencoderTiny.from_pretrained(model, subfolder="tiny_vae", dtype=torch.float32)
    clip = Clip(model / "clip")

    figures = sizes(model) | reconstruction(
        pipeline.vae, tiny_vae, renders, [scenery.scene for scenery in sceneries]
    )
    embedded = clip.embed_pictures([Image.fromarray(picture) for picture in renders])
    figures |= {
        f"CLIP on renders: {name}": share for name, share in accuracy(clip, embedded, sceneries).items()
    }
    asked = sceneries[:NUM_CAPTIONS]
    images, seconds = generate(pipeline, [scenery.caption() for scenery in asked])
    shares = accuracy(clip, clip.embed_pictures(images), asked)
    figures |= {f"generated: {name}": share for name, share in shares.items()}
    figures["seconds an image (20 steps)"] = seconds

    for name, (relation, target) in TARGETS.items():
        verdict = "met   " if is_met(name, figures[name]) else "MISSED"
        print(f"{verdict} {name}: {figures[name]:.3g} (target {relation} {target})")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "report.json", {name: round(float(value), 4) for name, value in figures.items()})
        pictures = [np.asarray(image) for image in images[:40]]
        save_grid([np.stack(pictures[start : start + 10]) for start in range(0, 40, 10)], out / "samples.png")
    return figures


def is_met(name: str, value: float) -> bool:
    """Whether a figure of this name is as good as it is held to be."""
    relation, target = TARGETS[name]
    return value <= target if relation == "<=" else value >= target


def sizes(model: Path) -> dict[str, float]:
    megabytes = [path.stat().st_size / 1e6 for path in model.rglob("*") if path.is_file()]
    return {"largest file (MB)": max(megabytes), "all files (MB)": sum(megabytes)}


def psnr(decoded: Tensor, pixels: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB, (B,); both (B, 3, H, W) in [-1, 1]."""
    error = ((decoded.clamp(-1, 1) - pixels) / 2).square().mean(dim=(1, 2, 3))
    return -10 * error.log10()


@torch.no_grad()
def reconstruction(vae, tiny_vae, renders: np.ndarray, scenes: list[str]) -> dict[str, float]:
    by_vae, by_tiny = [], []
    for start in range(0, len(renders), 16):
        pixels = to_pixels(renders[start : start + 16])
        latents = vae.encode(pixels).latent_dist.mode()
        by_vae.append(psnr(vae.decode(latents).sample, pixels))
        by_tiny.append(psnr(tiny_vae.decode(latents * vae.config.scaling_factor).sample, pixels))
    of_scene = defaultdict(list)
    for scene, value in zip(scenes, torch.cat(by_vae).tolist(), strict=True):
        of_scene[scene].append(value)
    mean = torch.cat(by_vae).mean().item()
    return {
        "VAE PSNR (dB)": mean,
        "VAE PSNR, worst scene (dB)": min(float(np.mean(values)) for values in of_scene.values()),
        "tiny VAE below VAE (dB)": mean - torch.cat(by_tiny).mean().item(),
    }


def generate(pipeline: StableDiffusionPipeline, captions: list[str]) -> tuple[list[Image.Image], float]:
    """One image a caption, 20 steps, seeds counted from 0; and the median seconds of an image drawn alone."""
    settings = {"num_inference_steps": 20, "guidance_scale": 5.0, "width": 128, "height": 128}
    alone = []
    for _ in range(5):
        started = time.perf_counter()
        pipeline(captions[0], **settings)
        alone.append(time.perf_counter() - started)
    images = []
    for start in range(0, len(captions), 8):
        batch = captions[start : start + 8]
        generators = [torch.Generator().manual_seed(start + index) for index in range(len(batch))]
        images += pipeline(batch, generator=generators, **settings).images
    return images, float(np.median(alone))
