"""Every job from the shell: `python -m dreamspace COMMAND`."""

import argparse
import dataclasses
import json
import os
import re
import sys
from pathlib import Path
from typing import get_args

from dreamspace.config import (
    MAX_SEED,
    Prior,
    RunConfig,
    apply_settings,
    is_hub_id,
    list_presets,
    load_datasets,
    load_preset,
)
from dreamspace.console import watch
from dreamspace.doctor import examine
from dreamspace.jobs.launcher import submit
from dreamspace.jobs.new_run import absolute_model, copy_run, prior_folder, writable_folder, write_run
from dreamspace.jobs.workspace import Workspace, cache_of
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


def _add_train_options(train: Parser) -> None:
    train.add_argument("--config", type=Path, help="config.json of the run")
    train.add_argument("--datasets", type=Path, help="multidatabackend.json, the list of datasets")
    train.add_argument("--preset", help=f"a configuration by name: {', '.join(list_presets())}")
    train.add_argument("--photos", type=Path, help="folder with photos of the subject")
    train.add_argument("--class-word", help="what the subject is, such as dog")
    train.add_argument("--token", help="the rare word that stands for the subject, such as sks")
    train.add_argument(
        "--class-images",
        type=int,
        metavar="N",
        help="class images that the base model draws first, so that it forgets less (0: none)",
    )
    train.add_argument(
        "--prior",
        choices=get_args(Prior),
        help="how to keep what the model knew of the class: not at all, by the photos alone, by class images "
        "towards their noise, or by class images towards the base model (base, where there are class images)",
    )
    train.add_argument("--masks", type=Path, metavar="DIR", help="masks of the photos, as `mask` makes them")
    train.add_argument(
        "--captions",
        action="store_true",
        default=None,
        help="take each photo's caption from the .txt file beside it",
    )
    train.add_argument(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        dest="settings",
        help="change a setting; may be repeated",
    )
    train.add_argument(
        "--run",
        type=Path,
        required=True,
        metavar="DIR",
        dest="run_dir",
        help="folder of the run, made if missing",
    )
    train.add_argument("--resume", action="store_true", help="go on from the run's newest checkpoint")


# Options of `train` that make the two files, and mean nothing where these are given.
_SHORT_FORM = ("preset", "photos", "class_word", "token", "class_images", "prior", "masks", "captions")


def run_train(options: argparse.Namespace) -> int:
    """Write the run's folder, or take the one to be resumed, and train it."""
    run_dir = options.run_dir.resolve()
    if options.resume:
        _check_resume(options)
    elif options.config or options.datasets:
        _write_pair(options)
    else:
        _write_short_form(options)
    config = RunConfig.load(run_dir / "config.json")
    load_datasets(run_dir / "multidatabackend.json")
    secrets = _secrets_for(config.pretrained_model_name_or_path)
    submit(run_dir, "train", {"resume": options.resume}, secrets=secrets)
    return watch(run_dir)


def _check_resume(options: argparse.Namespace) -> None:
    given = ("config", "datasets", "settings", *_SHORT_FORM)
    for name in given:
        if getattr(options, name) is not None:
            option = "--set" if name == "settings" else f"--{name.replace('_', '-')}"
            raise ValueError(f"--resume goes on with the run's own settings. Leave out {option}.")
    if not (options.run_dir / "config.json").exists():
        raise ValueError(f"There is no run in {options.run_dir} to resume. Start it without --resume.")


def _write_pair(options: argparse.Namespace) -> None:
    if not (options.config and options.datasets):
        raise ValueError("--config and --datasets belong together. Give both, or --preset and --photos.")
    for name in _SHORT_FORM:
        if getattr(options, name) is not None:
            raise ValueError(
                f"--config and --datasets say it all. Leave out --{name.replace('_', '-')}, "
                "or change a setting by --set."
            )
    copy_run(options.run_dir, options.config, options.datasets, options.settings or [])


def _write_short_form(options: argparse.Namespace) -> None:
    for name, value in (("--photos", options.photos), ("--class-word", options.class_word)):
        if value is None:
            raise ValueError(
                f"{name} is missing. Give --photos DIR and --class-word WORD, or --config and --datasets."
            )
    num_class_images = options.class_images or 0
    if num_class_images < 0:
        raise ValueError(f"--class-images must be 0 or more, got {num_class_images}.")
    preset = load_preset(options.preset or "mini")
    settings = options.settings or []
    given = {"class_word": options.class_word, "num_class_images": num_class_images}
    config = apply_settings(preset.config.model_copy(update=given), settings)
    prior = options.prior or ("base" if config.num_class_images else "none")
    prior_dir = None
    if config.num_class_images:
        # The job draws into the workspace that the run lies in, and no other.
        workspace = Workspace(cache_of(options.run_dir.resolve()).parent)
        model = config.pretrained_model_name_or_path
        prior_dir = prior_folder(workspace, model, config.class_word or "")
    write_run(
        options.run_dir,
        preset,
        options.photos,
        class_word=options.class_word,
        token=options.token,
        prior=prior,
        masks_dir=options.masks,
        has_captions=bool(options.captions),
        num_class_images=num_class_images,
        prior_dir=prior_dir,
        settings=settings,
    )


def _add_prior_options(prior: Parser) -> None:
    prior.add_argument("--model", default="mini", help="'mini', a folder, or a Hub id")
    prior.add_argument("--prompt", action="append", required=True, help="class prompt; may be repeated")
    prior.add_argument("--count", type=int, default=24, help="number of images")
    prior.add_argument("--seed", type=int, default=0, help="of the first image; the others count up")
    prior.add_argument(
        "--out", type=Path, required=True, help="folder of the images; your own photos in it count"
    )


def run_prior(options: argparse.Namespace) -> int:
    """Draw class images into a folder."""
    _check_from("--count", options.count, 1)
    _check_prompts(options.prompt)
    _check_seed(options.seed)
    arguments = {
        "model": absolute_model(options.model),
        "prompts": options.prompt,
        "count": options.count,
        "seed": options.seed,
        "out": str(writable_folder(options.out)),
    }
    return _run_job("prior", arguments, secrets=_secrets_for(arguments["model"]))


def _add_generate_options(generate: Parser) -> None:
    generate.add_argument("--run", type=Path, dest="run_dir", metavar="DIR", help="a finished run")
    generate.add_argument("--checkpoint", type=int, metavar="STEP", help="use this checkpoint of the run")
    generate.add_argument("--model", help="base model, where no run is given (mini)")
    generate.add_argument("--adapter", type=Path, help="folder of an adapter, where no run is given")
    generate.add_argument("--prompt", action="append", required=True, help="may be repeated")
    generate.add_argument("--seed", type=int, default=0, help="the same seed and prompt: the same image")
    generate.add_argument("--steps", type=int, help="denoising steps of an image")
    generate.add_argument("--guidance", type=float, help="how strictly images follow the prompt")
    generate.add_argument("--out", type=Path, required=True, help="folder for the images")


def run_generate(options: argparse.Namespace) -> int:
    """Draw images with a run's adapter or any other."""
    if options.run_dir is None and options.adapter is None:
        raise ValueError("Nothing says which adapter to use. Give --run DIR, or --model and --adapter DIR.")
    if options.run_dir and (options.model or options.adapter):
        raise ValueError("--run knows its model and adapter. Leave out --model and --adapter.")
    if options.adapter and options.checkpoint is not None:
        raise ValueError("--checkpoint belongs to --run. Give the checkpoint's folder as --adapter instead.")
    _check_prompts(options.prompt)
    _check_seed(options.seed)
    _check_from("--steps", options.steps, 1)
    _check_from("--guidance", options.guidance, 0)
    arguments = {
        "run_dir": str(options.run_dir.resolve()) if options.run_dir else None,
        "model": absolute_model(options.model or "mini"),
        "adapter": str(options.adapter.resolve()) if options.adapter else None,
        "checkpoint": options.checkpoint,
        "prompts": options.prompt,
        "seed": options.seed,
        "num_inference_steps": options.steps,
        "guidance": options.guidance,
        "out": str(writable_folder(options.out)),
    }
    model = arguments["model"]
    if options.run_dir:
        model = RunConfig.load(options.run_dir / "config.json").pretrained_model_name_or_path
    return _run_job("generate", arguments, secrets=_secrets_for(model))


def _add_publish_options(publish: Parser) -> None:
    publish.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a finished run")
    publish.add_argument("--repo", required=True, help="user/name")
    publish.add_argument("--public", action="store_true", help="let everyone see it; private otherwise")


def run_publish(options: argparse.Namespace) -> int:
    """Push a finished run; the token goes to that one job alone."""
    arguments = {
        "run_dir": str(options.run_dir.resolve()),
        "repo_id": options.repo,
        "private": not options.public,
    }
    return _run_job("publish", arguments, needs_gpu=False, secrets=_hub_token())


def _add_doctor_options(doctor: Parser) -> None:
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


def _run_job(
    kind: str, arguments: dict, *, needs_gpu: bool = True, secrets: dict[str, str] | None = None
) -> int:
    job_dir = Workspace().new_job_dir(kind)
    submit(job_dir, kind, arguments, needs_gpu=needs_gpu, secrets=secrets)
    return watch(job_dir)


def _hub_token() -> dict[str, str]:
    """HF_TOKEN, for a job that needs it."""
    return {"HF_TOKEN": os.environ["HF_TOKEN"]} if os.environ.get("HF_TOKEN") else {}


def _secrets_for(model: str) -> dict[str, str]:
    """HF_TOKEN, if the base model may have to be downloaded."""
    return _hub_token() if is_hub_id(model) else {}


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


_COMMANDS = {
    "train": ("train an adapter on photos of a subject", _add_train_options, run_train),
    "prior": ("let the base model draw class images", _add_prior_options, run_prior),
    "generate": ("make images with a run or an adapter", _add_generate_options, run_generate),
    "publish": (
        "push a finished run to the Hugging Face Hub (token in HF_TOKEN)",
        _add_publish_options,
        run_publish,
    ),
    "doctor": ("say what this machine has and what will work", _add_doctor_options, run_doctor),
}
