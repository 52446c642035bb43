"""`python -m dreamspace export`: what a run trained, in the formats that others read."""

import argparse
from typing import get_args

from dreamspace.commands.jobs import run_job, secrets_for
from dreamspace.commands.options import given_path
from dreamspace.config import RunConfig
from dreamspace.config.exports import ExportFormat, check_format


def add_export_weights_options(export: argparse.ArgumentParser) -> None:
    export.add_argument("run_dir", type=given_path, metavar="RUN_DIR", help="a finished run")
    export.add_argument("--format", choices=get_args(ExportFormat), required=True)
    export.add_argument("--checkpoint", type=int, metavar="STEP", help="export this checkpoint of the run")
    export.add_argument("--ema", action="store_true", help="export the moving average of the weights")
    export.add_argument(
        "--out", type=given_path, required=True, help="a .safetensors file, or a folder where it is merged"
    )


def run_export_weights(options: argparse.Namespace) -> int:
    """Write a run's weights in a format."""
    config = RunConfig.load(options.run_dir / "config.json")
    check_format(options.format, config)
    if options.format != "merged" and options.out.suffix != ".safetensors":
        raise ValueError(f"--out must be a .safetensors file for '{options.format}', got '{options.out}'.")
    arguments = {
        "run_dir": str(options.run_dir.resolve()),
        "checkpoint": options.checkpoint,
        "ema": options.ema,
        "format": options.format,
        "out": str(options.out.resolve()),
    }
    secrets = secrets_for(config.pretrained_model_name_or_path)
    return run_job("export", arguments, needs_gpu=False, secrets=secrets)
