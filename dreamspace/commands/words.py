"""`python -m dreamspace tokens`, `lookalikes` and `words`: the words that a subject is taught under."""

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from dreamspace.commands.jobs import run_job_in, secrets_for
from dreamspace.commands.options import given_name, given_path
from dreamspace.config import DatasetConfig, load_datasets
from dreamspace.data.photos import list_photos
from dreamspace.files import read_json
from dreamspace.jobs.new_run import absolute_model, writable_folder
from dreamspace.jobs.workspace import Workspace
from dreamspace.prompts.names import bundled_names, read_names
from dreamspace.prompts.pieces import tokenizers_of
from dreamspace.prompts.preview import captions_preview, preview
from dreamspace.prompts.results import (
    LOOKALIKES_NAME,
    LOOKALIKES_SHEET_NAME,
    TOKENS_NAME,
    TOKENS_SHEET_NAME,
    lookalikes_table,
    tokens_table,
)

MAX_COUNT = 200


def add_tokens_options(tokens: argparse.ArgumentParser) -> None:
    tokens.add_argument("--count", type=int, default=20, help="number of tokens to name")
    tokens.add_argument(
        "--check",
        action="append",
        default=[],
        type=given_name,
        metavar="WORD",
        help="judge this word too, such as sks; may be repeated",
    )
    _add_common_options(tokens)


def run_tokens(options: argparse.Namespace) -> int:
    """Rank rare tokens, and print them with their reasons."""
    if not 1 <= options.count <= MAX_COUNT:
        raise ValueError(f"--count must be 1 to {MAX_COUNT}, got {options.count}.")
    for word in options.check:
        if len(word.split()) > 1:
            raise ValueError(f"--check takes one word, got '{word}'. Repeat it for each word.")
    arguments = _common_arguments(options) | {
        "count": options.count,
        "check": [word.strip() for word in options.check],
    }
    return _run(options, "tokens", arguments, TOKENS_NAME, TOKENS_SHEET_NAME, tokens_table)


def add_lookalikes_options(lookalikes: argparse.ArgumentParser) -> None:
    lookalikes.add_argument("photos_dir", type=given_path, metavar="PHOTOS_DIR", help="photos of the subject")
    lookalikes.add_argument(
        "--names",
        type=given_path,
        metavar="FILE",
        help="names or looks of your own, one a line; else a list that fits the class word",
    )
    lookalikes.add_argument("--name", type=given_name, help="the subject's own name, which is probed first")
    _add_common_options(lookalikes)


def run_lookalikes(options: argparse.Namespace) -> int:
    """Rank names and looks by their likeness to photos, and print them with their numbers."""
    list_photos(options.photos_dir)
    names = read_names(options.names) if options.names else bundled_names(options.class_word)
    arguments = _common_arguments(options) | {
        "photos": str(options.photos_dir.resolve()),
        "names": names,
        "own_name": options.name and " ".join(options.name.split()),
    }
    return _run(options, "lookalikes", arguments, LOOKALIKES_NAME, LOOKALIKES_SHEET_NAME, lookalikes_table)


def add_words_options(words: argparse.ArgumentParser) -> None:
    words.add_argument("prompt", type=given_name, metavar="PROMPT", help="such as 'a photo of a sks dog'")
    words.add_argument("--model", type=given_name, default="mini", help="'mini', a folder, or a Hub id")
    words.add_argument(
        "--photos", type=given_path, metavar="DIR", help="show the final caption of each of these photos"
    )
    words.add_argument(
        "--captions", action="store_true", help="take them from the .txt files beside the photos"
    )
    words.add_argument(
        "--datasets", type=given_path, metavar="F", help="a multidatabackend.json, instead of --photos"
    )


def run_words(options: argparse.Namespace) -> int:
    """Print what each tokenizer makes of a prompt, and the captions of photos."""
    if options.photos and options.datasets:
        raise ValueError("--datasets names its photos itself. Leave out --photos.")
    if options.captions and not options.photos:
        raise ValueError("--captions are those of --photos. Give the folder, or leave it out.")
    tokenizers = tokenizers_of(options.model)
    print(preview(options.prompt, tokenizers))
    datasets = []
    if options.datasets:
        datasets = load_datasets(options.datasets)
    elif options.photos:
        strategy = "textfile" if options.captions else "instanceprompt"
        datasets = [
            DatasetConfig(
                id="photos",
                instance_data_dir=options.photos,
                instance_prompt=options.prompt,
                caption_strategy=strategy,
            )
        ]
    for dataset in datasets:
        print(captions_preview(dataset, tokenizers))
    return 0


def _add_common_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", type=given_name, default="mini", help="'mini', a folder, or a Hub id")
    command.add_argument("--class-word", type=given_name, default="dog", help="what the subject is (dog)")
    command.add_argument(
        "--probe", action="store_true", help="let the base model draw the best, and judge them by that"
    )
    command.add_argument(
        "--clip",
        type=given_name,
        help="the open_clip model that compares pictures, by name, Hub id or folder (else the model's own)",
    )
    command.add_argument("--out", type=given_path, metavar="DIR", help="copy the report and the sheet here")
    command.add_argument("--json", action="store_true", help="print JSON")


def _common_arguments(options: argparse.Namespace) -> dict[str, Any]:
    clip = options.clip
    return {
        "model": absolute_model(options.model),
        "class_word": options.class_word.strip(),
        "probe": options.probe,
        "clip": str(Path(clip).expanduser().resolve()) if clip and Path(clip).is_dir() else clip,
    }


def _run(
    options: argparse.Namespace,
    kind: str,
    arguments: dict[str, Any],
    report_name: str,
    sheet_name: str,
    table: Callable[[dict[str, Any]], str],
) -> int:
    """Do the job and print its report; with --json nothing else goes to standard output."""
    out = None if options.out is None else writable_folder(options.out)
    job_dir = Workspace().new_job_dir(kind)
    with redirect_stdout(sys.stderr if options.json else sys.stdout):
        status = run_job_in(job_dir, kind, arguments, secrets=secrets_for(arguments["model"]))
    if status != 0 or not (job_dir / report_name).exists():
        return status
    report = read_json(job_dir / report_name)
    print(json.dumps(report, indent=2, ensure_ascii=False) if options.json else f"\n{table(report)}")
    for name in (report_name, sheet_name):
        if out is not None and (job_dir / name).exists():
            shutil.copyfile(job_dir / name, out / name)
    return status
