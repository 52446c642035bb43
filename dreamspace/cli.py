"""Every job from the shell: `python -m dreamspace COMMAND`."""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

from dreamspace.config import RunConfig, apply_settings, list_presets, load_datasets, load_preset
from dreamspace.doctor import examine
from dreamspace.jobs.events import Event
from dreamspace.jobs.launcher import follow, stop, submit
from dreamspace.jobs.new_run import prior_folder, write_run
from dreamspace.jobs.workspace import Workspace, job_status
from dreamspace.suggest import nearest


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for what the caller can mend, 1 for our own fault."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except ValueError as error:
        print(f"dreamspace: {error}", file=sys.stderr)
        return 2


class Parser(argparse.ArgumentParser):
    """argparse that names the nearest command or option."""

    def error(self, message: str) -> None:
        known = [name for action in self._actions for name in (action.choices or action.option_strings)]
        given = next(
            (
                word
                for word in sys.argv[1:]
                if f"'{word}'" in message or word in message.split(": ")[-1].split()
            ),
            "",
        )
        self.exit(
            2, f"{self.prog}: {message}.{nearest(given, map(str, known)) if given else ''} See --help.\n"
        )


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m dreamspace", description="Teach a text-to-image model your own subject.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    train = commands.add_parser("train", help="train an adapter on photos of a subject")
    train.add_argument("--config", type=Path, help="config.json of the run")
    train.add_argument("--datasets", type=Path, help="multidatabackend.json, the list of datasets")
    train.add_argument("--preset", help=f"a configuration by name: {', '.join(list_presets())}")
    train.add_argument("--photos", type=Path, help="folder with photos of the subject")
    train.add_argument("--class-word", help="what the subject is, such as dog")
    train.add_argument("--token", help="the rare word that stands for the subject, such as sks")
    train.add_argument(
        "--class-images",
        type=int,
        default=0,
        metavar="N",
        help="class images that the base model draws first, so that it forgets less (0: none)",
    )
    train.add_argument(
        "--set",
        action="append",
        default=[],
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
    train.set_defaults(run=run_train)

    prior = commands.add_parser("prior", help="let the base model draw class images")
    prior.add_argument("--model", default="mini", help="'mini', a folder, or a Hub id")
    prior.add_argument("--prompt", action="append", required=True, help="class prompt; may be repeated")
    prior.add_argument("--count", type=int, default=24, help="number of images")
    prior.add_argument("--seed", type=int, default=0)
    prior.add_argument(
        "--out", type=Path, required=True, help="folder of the images; those that are there are kept"
    )
    prior.set_defaults(run=run_prior)

    generate = commands.add_parser("generate", help="make images with a run or an adapter")
    generate.add_argument("--run", type=Path, dest="run_dir", metavar="DIR", help="a finished run")
    generate.add_argument("--model", default="mini", help="base model, where no run is given")
    generate.add_argument("--adapter", type=Path, help="folder of an adapter, where no run is given")
    generate.add_argument("--checkpoint", type=int, metavar="STEP", help="use this checkpoint of the run")
    generate.add_argument("--prompt", action="append", required=True, help="may be repeated")
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--steps", type=int, help="denoising steps of an image")
    generate.add_argument("--guidance", type=float, help="how strictly images follow the prompt")
    generate.add_argument("--out", type=Path, required=True, help="folder for the images")
    generate.set_defaults(run=run_generate)

    publish = commands.add_parser(
        "publish", help="push a finished run to the Hugging Face Hub (token in HF_TOKEN)"
    )
    publish.add_argument("run_dir", type=Path)
    publish.add_argument("--repo", required=True, help="user/name")
    publish.add_argument("--public", action="store_true", help="let everyone see it; private otherwise")
    publish.set_defaults(run=run_publish)

    doctor = commands.add_parser("doctor", help="say what this machine has and what will work")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(run=run_doctor)
    return parser


def run_train(options: argparse.Namespace) -> int:
    run_dir = options.run_dir.resolve()
    if options.resume:
        if not (run_dir / "config.json").exists():
            raise ValueError(f"There is no run in {options.run_dir} to resume. Start it without --resume.")
    elif options.config or options.datasets:
        _write_pair(options, run_dir)
    else:
        _write_short_form(options, run_dir)
    RunConfig.load(run_dir / "config.json")
    load_datasets(run_dir / "multidatabackend.json")
    submit(run_dir, "train", {"resume": options.resume})
    return watch(run_dir)


def _write_pair(options: argparse.Namespace, run_dir: Path) -> None:
    """Copy a pair of files into a new run, once both are valid."""
    if not (options.config and options.datasets):
        raise ValueError("--config and --datasets belong together. Give both, or --preset and --photos.")
    if options.photos or options.preset or options.class_images:
        raise ValueError("--config takes no --preset, --photos or --class-images: the two files say it all.")
    if (run_dir / "config.json").exists():
        raise ValueError(
            f"{options.run_dir} holds a run already. Resume it with --resume, or name another folder."
        )
    config = RunConfig.load(options.config)
    load_datasets(options.datasets)
    if options.settings:
        config = apply_settings(config, options.settings)
    run_dir.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(options.datasets, run_dir / "multidatabackend.json")
    config.save(run_dir / "config.json")


def _write_short_form(options: argparse.Namespace, run_dir: Path) -> None:
    for name, value in (("--photos", options.photos), ("--class-word", options.class_word)):
        if value is None:
            raise ValueError(
                f"{name} is missing. Give --photos DIR and --class-word WORD, or --config and --datasets."
            )
    if options.class_images < 0:
        raise ValueError(f"--class-images must be 0 or more, got {options.class_images}.")
    preset = load_preset(options.preset or "mini")
    prior_dir = None
    if options.class_images:
        prior_dir = prior_folder(Workspace(), preset.config.pretrained_model_name_or_path, options.class_word)
    write_run(
        run_dir,
        preset,
        options.photos,
        class_word=options.class_word,
        token=options.token,
        num_class_images=options.class_images,
        prior_dir=prior_dir,
        settings=options.settings,
    )


def run_prior(options: argparse.Namespace) -> int:
    if options.count < 1:
        raise ValueError(f"--count must be 1 or more, got {options.count}.")
    arguments = {
        "model": options.model,
        "prompts": options.prompt,
        "count": options.count,
        "seed": options.seed,
        "out": str(options.out.resolve()),
    }
    return _run_job("prior", arguments)


def run_generate(options: argparse.Namespace) -> int:
    if options.run_dir is None and options.adapter is None:
        raise ValueError("Nothing says which adapter to use. Give --run DIR, or --model and --adapter DIR.")
    arguments = {
        "run_dir": str(options.run_dir.resolve()) if options.run_dir else None,
        "model": options.model,
        "adapter": str(options.adapter.resolve()) if options.adapter else None,
        "checkpoint": options.checkpoint,
        "prompts": options.prompt,
        "seed": options.seed,
        "num_inference_steps": options.steps,
        "guidance": options.guidance,
        "out": str(options.out.resolve()),
    }
    return _run_job("generate", arguments)


def run_publish(options: argparse.Namespace) -> int:
    arguments = {
        "run_dir": str(options.run_dir.resolve()),
        "repo_id": options.repo,
        "private": not options.public,
    }
    secrets = {"HF_TOKEN": os.environ["HF_TOKEN"]} if os.environ.get("HF_TOKEN") else {}
    return _run_job("publish", arguments, needs_gpu=False, secrets=secrets)


def run_doctor(options: argparse.Namespace) -> int:
    findings = examine()
    if options.json:
        print(json.dumps([finding.__dict__ for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.works else 'no  '} {finding.name}: {finding.text}")
    return 0


def _run_job(kind: str, arguments: dict, **submission) -> int:
    job_dir = Workspace().new_job_dir(kind)
    submit(job_dir, kind, arguments, **submission)
    return watch(job_dir)


def watch(job_dir: Path) -> int:
    """Print a job's events until it has ended; Ctrl-C asks it to save and stop. Returns the exit status."""
    printer = Printer(job_dir)
    events = follow(job_dir)
    while True:
        try:
            for event in events:
                printer.show(event)
            break
        except KeyboardInterrupt:
            print(
                "\nStopping: the job saves first. Press Ctrl-C again to leave it to itself.", file=sys.stderr
            )
            stop(job_dir)
            try:
                for event in follow(job_dir, printer.offset()):
                    printer.show(event)
            except KeyboardInterrupt:
                return 1
            break
    status = job_status(job_dir)
    if status.exit_status:
        print(f"dreamspace: {status.message} {status.hint}".rstrip(), file=sys.stderr)
        if status.exit_status == 1:
            print(f"The log is {job_dir / 'log.txt'}.", file=sys.stderr)
    return status.exit_status


class Printer:
    """Shows events as lines: stages, progress every few seconds, warnings, and where results are."""

    def __init__(self, job_dir: Path) -> None:
        self.job_dir = job_dir
        self._last_progress = 0.0
        self._last_loss = float("nan")

    def offset(self) -> int:
        """The end of the log, for following it anew."""
        return (self.job_dir / "events.jsonl").stat().st_size

    def show(self, event: Event) -> None:
        kind = event["kind"]
        if kind == "stage":
            print(event["message"], flush=True)
        elif kind == "loss":
            self._last_loss = event["loss"] if event["loss"] is not None else float("nan")
        elif kind == "progress":
            self._show_progress(event)
        elif kind == "sample":
            print(f"  {event['path']}: {event['prompt']}", flush=True)
        elif kind == "mixture":
            shares = ", ".join(f"{share:.0%} {name}" for name, share in event["datasets"].items())
            print(
                f"Rows: {shares} ({event['num_instances']} photos, {event['num_prior']} class images).",
                flush=True,
            )
        elif kind == "warning":
            print(f"Warning: {event['message']} {event['hint'] or ''}".rstrip(), file=sys.stderr, flush=True)
        elif kind in ("done", "stopped"):
            ended = "Done" if kind == "done" else "Stopped and saved"
            where = event["path"] if "://" in str(event["path"]) else self.job_dir / (event["path"] or "")
            print(f"{ended}: {where}", flush=True)

    def _show_progress(self, event: Event) -> None:
        now, last = time.monotonic(), event["step"] == event["num_steps"]
        if now - self._last_progress > 3 or last:
            self._last_progress = now
            left = time.strftime("%M:%S", time.gmtime(event["eta_seconds"] or 0))
            print(
                f"  step {event['step']} of {event['num_steps']}, loss {self._last_loss:.4f}, {left} left",
                flush=True,
            )
