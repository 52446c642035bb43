"""`python -m dreamspace.mini build --out DIR` reruns the recipe; `report` measures its weights."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dreamspace.commands.options import given_path
from dreamspace.mini import MODEL_FOLDER, parts
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
    vae_stage,
)
from dreamspace.mini.renders import training_pool
from dreamspace.mini.stages import train_stage
from dreamspace.mini.subjects import SUBJECTS, write_photos
from dreamspace.mini.words import build_tokenizer

NUM_RENDERS = 20_000
NUM_STEPS = {"vae": 3000, "clip": 15_000, "denoiser": 20_000, "tiny_vae": 5000}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m dreamspace.mini", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser(
        "build", help="train all parts and write the model folder; resumes where it stopped"
    )
    build.add_argument("--out", type=given_path, required=True, help="model folder to write")
    build.add_argument(
        "--work", type=given_path, default=Path("workspace/mini-build"), help="renders and checkpoints"
    )
    build.add_argument(
        "--stage", choices=NUM_STEPS, help="train this stage only (those before it must be there)"
    )
    build.add_argument("--steps", type=int, help="steps of that stage, instead of the recipe's")
    build.add_argument("--num-workers", type=int, default=2, help="processes that render")
    report = commands.add_parser("report", help="measure the weights and print the quality table")
    report.add_argument("--model", type=given_path, default=MODEL_FOLDER, help="model folder to measure")
    report.add_argument(
        "--out", type=given_path, help="write the figures (report.json) and a grid (samples.png) here"
    )
    photos = commands.add_parser("photos", help="write the photos of a sample subject")
    photos.add_argument("subject", choices=SUBJECTS)
    photos.add_argument("--out", type=given_path, required=True, help="folder of the photos")
    options = parser.parse_args(arguments)
    if options.command == "photos":
        for path in write_photos(options.subject, options.out):
            print(path)
        return 0
    if options.command == "build" and options.steps is not None and options.stage is None:
        parser.error("--steps needs --stage: say which stage it is for.")
    if options.command == "build":
        run_recipe(options)
    else:
        from dreamspace.mini.report import measure

        measure(options.model, options.out)
    return 0


def run_recipe(options: argparse.Namespace) -> None:
    """Train the stages in turn, each to its end; what is finished already is only loaded."""
    options.work.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    num_steps = NUM_STEPS | ({options.stage: options.steps} if options.steps else {})
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
    from dreamspace.mini.recipe import to_pixels

    with torch.no_grad():
        pixels = to_pixels(np.array(recipe.pool[:64])).to(recipe.device)
        return latent_scale(vae.encode(pixels).latent_dist.mode())


def _sampler(vae: nn.Module, tokenizer, device: torch.device):
    """Pictures of prompts by the stock pipeline, for the grids that show the training's progress."""
    from diffusers import StableDiffusionPipeline

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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
