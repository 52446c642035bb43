"""Every job from the shell: `python -m dreamspace COMMAND`."""

import argparse
import dataclasses
import json
import re
import sys

from dreamspace.commands.caption import add_caption_options, run_caption
from dreamspace.commands.estimate import add_estimate_options, run_estimate
from dreamspace.commands.evaluate import add_evaluate_options, run_evaluate
from dreamspace.commands.export import add_export_weights_options, run_export_weights
from dreamspace.commands.images import add_generate_options, add_prior_options, run_generate, run_prior
from dreamspace.commands.jobs import hub_token, run_job
from dreamspace.commands.mask import add_mask_options, run_mask
from dreamspace.commands.options import given_path
from dreamspace.commands.simpletuner import (
    add_export_options,
    add_import_options,
    run_export,
    run_import,
)
from dreamspace.commands.train import add_train_options, run_train
from dreamspace.commands.words import (
    add_lookalikes_options,
    add_tokens_options,
    add_words_options,
    run_lookalikes,
    run_tokens,
    run_words,
)
from dreamspace.doctor import examine
from dreamspace.suggest import nearest


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for what the caller can mend, 1 for our own fault.

    Raises:
        SystemExit: of status 2 where the arguments do not parse, of 0 after `--help`.
    """
    parser = build_parser()
    options, unknown = parser.parse_known_args(arguments)
    try:
        if unknown:
            known = re.findall(r"--[a-z-]+", parser.commands[options.command].format_help())
            raise ValueError(
                f"{options.command} does not take '{unknown[0]}'.{nearest(unknown[0], known)} See --help."
            )
        return options.run(options)
    except ValueError as error:
        print(f"dreamspace: {error}", file=sys.stderr)
        return 2


class Parser(argparse.ArgumentParser):
    """argparse that says what is wrong in one line, and names the nearest command."""

    commands: dict[str, "Parser"]
    """The parser of each command by its name, where there are any."""

    def error(self, message: str) -> None:
        misspelt = re.search(r"invalid choice: '([^']*)'", message)
        known = [choice for action in self._actions for choice in action.choices or ()]
        hint = nearest(misspelt[1], known) if misspelt else ""
        self.exit(2, f"{self.prog}: {message}.{hint} See --help.\n")


def build_parser() -> Parser:
    """The parser of the whole command line."""
    parser = Parser(prog="python -m dreamspace", description="Teach a text-to-image model your own subject.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name, (summary, add_options, run) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        add_options(command)
        command.set_defaults(run=run)
    parser.commands = commands.choices
    return parser


def add_publish_options(publish: argparse.ArgumentParser) -> None:
    publish.add_argument("run_dir", type=given_path, metavar="RUN_DIR", help="a finished run")
    publish.add_argument("--repo", required=True, help="user/name")
    publish.add_argument("--checkpoint", type=int, metavar="STEP", help="publish this checkpoint of the run")
    publish.add_argument("--ema", action="store_true", help="publish the moving average of the weights")
    publish.add_argument("--public", action="store_true", help="let everyone see it; private otherwise")


def run_publish(options: argparse.Namespace) -> int:
    """Push a finished run; the token goes to that one job alone."""
    arguments = {
        "run_dir": str(options.run_dir.resolve()),
        "checkpoint": options.checkpoint,
        "ema": options.ema,
        "repo_id": options.repo,
        "private": not options.public,
    }
    return run_job("publish", arguments, needs_gpu=False, secrets=hub_token())


def add_doctor_options(doctor: argparse.ArgumentParser) -> None:
    doctor.add_argument("--json", action="store_true", help="print JSON")


def run_doctor(options: argparse.Namespace) -> int:
    """Print what `examine` finds."""
    findings = examine()
    if options.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.works else 'no  '} {finding.name}: {finding.text}")
    return 0


_COMMANDS = {
    "train": ("train an adapter on photos of a subject", add_train_options, run_train),
    "estimate": (
        "say whether a run fits, how long it takes and what it costs",
        add_estimate_options,
        run_estimate,
    ),
    "mask": ("mask the subject in photos", add_mask_options, run_mask),
    "caption": ("caption photos by an image-to-text model", add_caption_options, run_caption),
    "prior": ("let the base model draw class images", add_prior_options, run_prior),
    "tokens": ("find words that mean nothing to a model yet", add_tokens_options, run_tokens),
    "lookalikes": (
        "find names and looks that a model knows and that resemble photos",
        add_lookalikes_options,
        run_lookalikes,
    ),
    "words": ("show what the tokenizers make of a prompt", add_words_options, run_words),
    "generate": ("make images with a run or an adapter", add_generate_options, run_generate),
    "evaluate": (
        "say which checkpoint of a run to take and why, or what an adapter is worth",
        add_evaluate_options,
        run_evaluate,
    ),
    "publish": (
        "push a finished run to the Hugging Face Hub (token in HF_TOKEN)",
        add_publish_options,
        run_publish,
    ),
    "export": (
        "write a run's weights for other programs",
        add_export_weights_options,
        run_export_weights,
    ),
    "import-simpletuner": (
        "read a pair of SimpleTuner's files, say what differs, write ours",
        add_import_options,
        run_import,
    ),
    "export-simpletuner": ("write a run's two files for SimpleTuner", add_export_options, run_export),
    "doctor": ("say what this machine has and what will work", add_doctor_options, run_doctor),
}
