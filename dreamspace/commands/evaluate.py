"""`python -m dreamspace evaluate`: which checkpoint to take, and why."""

import argparse
from pathlib import Path
from typing import Any

from dreamspace.commands.jobs import run_job_in, secrets_for
from dreamspace.commands.options import given_name, given_path
from dreamspace.config import RunConfig
from dreamspace.data.photos import list_photos
from dreamspace.evaluation.leaks import leak_table
from dreamspace.evaluation.plots import Outcome
from dreamspace.files import read_json
from dreamspace.jobs.new_run import absolute_model, writable_folder
from dreamspace.jobs.workspace import Workspace, job_status
from dreamspace.run_folder import EVALUATION_FILE, WEIGHTS_NAME


def add_evaluate_options(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument(
        "run_dir", type=given_path, nargs="?", metavar="RUN_DIR", help="a run, finished or stopped"
    )
    evaluate.add_argument("--model", type=given_name, help="base model, where no run is given (mini)")
    evaluate.add_argument("--adapter", type=given_path, help="an adapter: its folder, or its file in one")
    evaluate.add_argument("--photos", type=given_path, metavar="DIR", help="photos of the adapter's subject")
    evaluate.add_argument("--class-word", help="what that subject is, such as 'dog'")
    evaluate.add_argument("--token", help="the word that stands for it in prompts")
    evaluate.add_argument(
        "--clip", type=given_name, help="the CLIP that scores, as pretrained_evaluation_model_name_or_path"
    )
    evaluate.add_argument("--dino", type=given_name, help="the DINOv2 that compares, or 'none'")
    evaluate.add_argument("--out", type=given_path, help="folder for the outcome; else the run's")


def run_evaluate(options: argparse.Namespace) -> int:
    """Judge a run's checkpoints, or one adapter."""
    arguments = _of_run(options) if options.run_dir else _of_adapter(options)
    if options.out is not None:
        arguments["out"] = str(writable_folder(options.out))
    arguments |= {"clip": options.clip, "dino": options.dino}
    model = arguments.get("model")
    if options.run_dir:
        model = RunConfig.load(options.run_dir / "config.json").pretrained_model_name_or_path
    job_dir = Workspace().new_job_dir("evaluate")
    exit_status = run_job_in(job_dir, "evaluate", arguments, secrets=secrets_for(model))
    if job_status(job_dir).status == "done":
        _show(read_json((options.out or options.run_dir or job_dir) / EVALUATION_FILE))
    return exit_status


def _show(outcome: Outcome) -> None:
    """Print what is wrong, what to try next, and the leak test of the recommended checkpoint."""
    for title, sentences in (("Warnings", outcome["warnings"]), ("What to try next", outcome["next_steps"])):
        if sentences:
            print(f"{title}:", *(f"  {sentence}" for sentence in sentences), sep="\n")
    print("What should not show the subject, against the base model:")
    print(f"  {'':44}{'gain in likeness':>17}{'share':>7}{'drift':>8}")
    for row in leak_table(outcome):
        share = "" if row.share is None else f"{row.share:.0%}"
        print(f"  {row.what:44}{row.gain:>+17.3f}{share:>7}{row.drift:>8.3f}")


def _of_run(options: argparse.Namespace) -> dict[str, Any]:
    for name in ("model", "adapter", "photos", "class_word", "token"):
        if getattr(options, name) is not None:
            raise ValueError(
                f"A run knows its model, photos and words. Leave out --{name.replace('_', '-')}."
            )
    if not (options.run_dir / "config.json").exists():
        raise ValueError(f"There is no run in {options.run_dir}. Name the folder that holds its config.json.")
    if options.out is None:
        writable_folder(options.run_dir)
    return {"run_dir": str(options.run_dir.resolve())}


def _of_adapter(options: argparse.Namespace) -> dict[str, Any]:
    for name in ("adapter", "photos", "class_word"):
        if getattr(options, name) is None:
            raise ValueError(
                f"--{name.replace('_', '-')} is missing. Give a run, or --adapter, --photos and --class-word."
            )
    list_photos(options.photos)
    return {
        "model": absolute_model(options.model or "mini"),
        "adapter": str(_folder(options.adapter)),
        "photos": str(options.photos.resolve()),
        "class_word": options.class_word,
        "token": options.token,
    }


def _folder(adapter: Path) -> Path:
    """The folder of an adapter that is given by it or by its file."""
    adapter = adapter.resolve()
    if adapter.is_file() and adapter.name != WEIGHTS_NAME:
        raise ValueError(
            f"An adapter's file is called {WEIGHTS_NAME} here, got {adapter.name}. Put it into a folder "
            "under that name."
        )
    return adapter.parent if adapter.is_file() else adapter
