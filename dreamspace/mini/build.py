"""Trains all parts of mini in turn, and writes its model folder."""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from dreamspace.mini import parts
from dreamspace.mini.export import (
    draw_unused_tokens,
    export_clip,
    export_pipeline,
    export_tiny_vae,
    latent_scale,
    sampling_scheduler,
)
from dreamspace.mini.recipe import (
    Recipe,
    clip_stage,
    denoiser_stage,
    tiny_vae_stage,
    to_pixels,
    vae_stage,
)
from dreamspace.mini.renders import training_pool
from dreamspace.mini.stages import train_stage
from dreamspace.mini.words import build_tokenizer

NUM_RENDERS = 20_000


def run_recipe(options: argparse.Namespace, num_steps: dict[str, int]) -> None:
    """Train the stages in turn, each to its end; what is finished already is only loaded."""
    options.work.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    tokenizer_folder = options.work / "tokenizer"
    if not tokenizer_folder.exists():
        build_tokenizer(tokenizer_folder)
    tokenizer = parts.load_tokenizer(tokenizer_folder)
    recipe = Recipe(options.work, training_pool(options.work, NUM_RENDERS, options.num_workers), device)

    def wanted(stage: str) -> bool:
        return options.stage in (None, stage)

    if wanted("clip"):
        clip = train_stage(clip_stage(recipe, tokenizer, num_steps["clip"]), options.work, device)["clip"]
        export_clip(clip, tokenizer_folder, options.out / "clip")
    if options.stage == "clip":
        return
    vae_steps = num_steps["vae"] if wanted("vae") else 0
    vae = train_stage(vae_stage(recipe, vae_steps), options.work, device)["vae"]
    vae.register_to_config(scaling_factor=_scale(recipe, vae))
    if wanted("tiny_vae"):
        tiny_vae = train_stage(tiny_vae_stage(recipe, vae, num_steps["tiny_vae"]), options.work, device)[
            "tiny_vae"
        ]
        export_tiny_vae(tiny_vae, options.out / "tiny_vae")
    if wanted("denoiser"):
        stage = denoiser_stage(
            recipe, tokenizer, vae, num_steps["denoiser"], _sampler(vae, tokenizer, device)
        )
        trained = train_stage(stage, options.work, device)
        draw_unused_tokens(trained["text_encoder"], tokenizer)
        with tempfile.TemporaryDirectory(dir=options.work) as temporary:
            export_pipeline(vae, trained["unet"], trained["text_encoder"], tokenizer_folder, Path(temporary))
            shutil.copytree(temporary, options.out, dirs_exist_ok=True)


def _scale(recipe: Recipe, vae: nn.Module) -> float:
    """The scaling factor, measured on the first pictures of the pool."""
    with torch.no_grad():
        pixels = to_pixels(np.array(recipe.pool[:64])).to(recipe.device)
        return latent_scale(vae.encode(pixels).latent_dist.mode())


def _sampler(vae: nn.Module, tokenizer, device: torch.device):
    """Pictures of prompts by the stock pipeline, for the grids that show the training's progress."""

    def sample(modules: dict[str, nn.Module], prompts: list[str]) -> np.ndarray:
        pipeline = StableDiffusionPipeline(
            vae=vae,
            text_encoder=modules["text_encoder"],
            tokenizer=tokenizer,
            unet=modules["unet"],
            scheduler=sampling_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        generators = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
        images = pipeline(
            prompts, num_inference_steps=20, guidance_scale=5.0, generator=generators, width=128, height=128
        ).images
        return np.stack([np.asarray(image) for image in images])

    return sample
