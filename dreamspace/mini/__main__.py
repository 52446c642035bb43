"""`python -m dreamspace.mini build --out DIR` reruns the recipe; `report` measures its weights."""

import argparse
import sys
from pathlib import Path

from dreamspace.commands.options import given_path
from dreamspace.mini import MODEL_FOLDER
from dreamspace.mini.subjects import SUBJECTS, write_photos

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
        from dreamspace.mini.build import run_recipe  # loads torch

        steps = NUM_STEPS | ({options.stage: options.steps} if options.steps else {})
        run_recipe(options, steps)
    else:
        from dreamspace.mini.report import measure

        measure(options.model, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
