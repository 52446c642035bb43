"""`python -m dreamspace prior` and `generate`: images by the base model, and by a trained adapter."""

import argparse

from dreamspace.commands.jobs import run_job, secrets_for
from dreamspace.commands.options import given_name, given_path
from dreamspace.config import MAX_SEED, RunConfig
from dreamspace.config.precision import QUANTISED
from dreamspace.jobs.new_run import absolute_model, writable_folder


def add_prior_options(prior: argparse.ArgumentParser) -> None:
    prior.add_argument("--model", type=given_name, default="mini", help="'mini', a folder, or a Hub id")
    prior.add_argument("--prompt", action="append", required=True, help="class prompt; may be repeated")
    prior.add_argument(
        "--precision",
        choices=["no_change", *QUANTISED],
        default="no_change",
        help="the base_model_precision of the run that the images are for",
    )
    prior.add_argument(
        "--mixed-precision",
        choices=["no", "fp16", "bf16"],
        help="its mixed_precision; left out, 16 bits on a GPU, and 'no' without one",
    )
    prior.add_argument("--count", type=int, default=24, help="number of images")
    prior.add_argument("--seed", type=int, default=0, help="of the first image; the others count up")
    prior.add_argument(
        "--out", type=given_path, required=True, help="folder of the images; your own photos in it count"
    )


def run_prior(options: argparse.Namespace) -> int:
    """Draw class images into a folder."""
    _check_from("--count", options.count, 1)
    _check_prompts(options.prompt)
    _check_seed(options.seed)
    arguments = {
        "model": absolute_model(options.model),
        "model_settings": _model_settings(options),
        "prompts": options.prompt,
        "count": options.count,
        "seed": options.seed,
        "out": str(writable_folder(options.out)),
    }
    return run_job("prior", arguments, secrets=secrets_for(arguments["model"]))


def _model_settings(options: argparse.Namespace) -> dict[str, str]:
    given = {"mixed_precision": options.mixed_precision} if options.mixed_precision else {}
    return {"base_model_precision": options.precision, **given}


def add_generate_options(generate: argparse.ArgumentParser) -> None:
    generate.add_argument("--run", type=given_path, dest="run_dir", metavar="DIR", help="a finished run")
    generate.add_argument("--checkpoint", type=int, metavar="STEP", help="use this checkpoint of the run")
    generate.add_argument("--ema", action="store_true", help="use the moving average of the run's weights")
    generate.add_argument("--model", type=given_name, help="base model, where no run is given (mini)")
    generate.add_argument("--adapter", type=given_path, help="folder of an adapter, where no run is given")
    generate.add_argument("--prompt", action="append", required=True, help="may be repeated")
    generate.add_argument("--seed", type=int, default=0, help="the same seed and prompt: the same image")
    generate.add_argument("--steps", type=int, help="denoising steps of an image")
    generate.add_argument("--guidance", type=float, help="how strictly images follow the prompt")
    generate.add_argument("--out", type=given_path, required=True, help="folder for the images")


def run_generate(options: argparse.Namespace) -> int:
    """Draw images with a run's adapter or any other."""
    if options.run_dir is None and options.adapter is None:
        raise ValueError("Nothing says which adapter to use. Give --run DIR, or --model and --adapter DIR.")
    if options.run_dir and (options.model or options.adapter):
        raise ValueError("--run knows its model and adapter. Leave out --model and --adapter.")
    if options.adapter and options.checkpoint is not None:
        raise ValueError("--checkpoint belongs to --run. Give the checkpoint's folder as --adapter instead.")
    if options.adapter and options.ema:
        raise ValueError(
            "--ema belongs to --run. Give the folder of the moving average as --adapter instead."
        )
    _check_prompts(options.prompt)
    _check_seed(options.seed)
    _check_from("--steps", options.steps, 1)
    _check_from("--guidance", options.guidance, 0)
    arguments = {
        "run_dir": str(options.run_dir.resolve()) if options.run_dir else None,
        "model": absolute_model(options.model or "mini"),
        "adapter": str(options.adapter.resolve()) if options.adapter else None,
        "checkpoint": options.checkpoint,
        "ema": options.ema,
        "prompts": options.prompt,
        "seed": options.seed,
        "num_inference_steps": options.steps,
        "guidance": options.guidance,
        "out": str(writable_folder(options.out)),
    }
    model = arguments["model"]
    if options.run_dir:
        model = RunConfig.load(options.run_dir / "config.json").pretrained_model_name_or_path
    return run_job("generate", arguments, secrets=secrets_for(model))


def _check_seed(seed: int) -> None:
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"--seed must be 0 to {MAX_SEED}, got {seed}.")


def _check_prompts(prompts: list[str]) -> None:
    if not all(prompt.strip() for prompt in prompts):
        raise ValueError("--prompt is empty. Say what the image shows, such as 'a photo of a dog'.")


def _check_from(option: str, value: float | None, lowest: int) -> None:
    """Raise ValueError if a given value is below `lowest`, or no number at all."""
    if value is not None and not value >= lowest:
        raise ValueError(f"{option} must be {lowest} or more, got {value}.")
