"""`python -m dreamspace train`: a run from two JSON files, or from photos and a preset."""

import argparse
import json
from dataclasses import replace
from typing import get_args

from dreamspace.commands.jobs import run_job_in, secrets_for
from dreamspace.commands.options import given_path
from dreamspace.config import (
    Preset,
    Prior,
    RunConfig,
    apply_settings,
    list_presets,
    load_datasets,
    load_preset,
)
from dreamspace.config.dataset import MAX_EDGE_PX
from dreamspace.config.findings import report
from dreamspace.data.captions import check_caption_files
from dreamspace.data.held_out import announcement, read_held_out
from dreamspace.data.kohya import is_kohya_folder, read_kohya_folder
from dreamspace.data.lint import lint_run
from dreamspace.data.photos import list_photos
from dreamspace.jobs.branch import branch_run
from dreamspace.jobs.new_run import copy_run, extend_run, prior_folder, write_pair, write_run
from dreamspace.jobs.workspace import Workspace, cache_of


def _some_presets() -> str:
    names = list_presets()
    return f"{', '.join(names)}" if len(names) < 5 else f"{names[0]}, or FAMILY-SIZEgb such as {names[1]}"


def add_train_options(train: argparse.ArgumentParser) -> None:
    train.add_argument("--config", type=given_path, help="config.json of the run")
    train.add_argument("--datasets", type=given_path, help="multidatabackend.json, the list of datasets")
    train.add_argument("--preset", help=f"a configuration by name: {_some_presets()}")
    train.add_argument("--photos", type=given_path, help="folder with photos of the subject, or kohya's")
    train.add_argument("--class-word", help="what the subject is, such as dog")
    train.add_argument("--token", help="the rare word that stands for the subject, such as sks")
    train.add_argument(
        "--class-images",
        type=int,
        metavar="N",
        help="class images that the base model draws first, so that it forgets less (0: none)",
    )
    train.add_argument(
        "--class-photos",
        type=given_path,
        metavar="DIR",
        help="a folder of your own class photos, instead of images that the base model draws",
    )
    train.add_argument(
        "--prior",
        choices=get_args(Prior),
        help="how to keep what the model knew of the class: not at all, by the photos alone, by class images "
        "towards their noise, or by class images towards the base model (base, where there are class images)",
    )
    train.add_argument(
        "--masks", type=given_path, metavar="DIR", help="masks of the photos, as `mask` makes them"
    )
    train.add_argument(
        "--captions",
        action="store_true",
        default=None,
        help="take each photo's caption from the .txt file beside it",
    )
    train.add_argument(
        "--resolution",
        type=int,
        metavar="PX",
        help="edge of the training pictures, instead of the preset's",
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
        type=given_path,
        required=True,
        metavar="DIR",
        dest="run_dir",
        help="folder of the run, made if missing",
    )
    train.add_argument(
        "--from-adapter",
        type=given_path,
        metavar="F",
        help="begin with this adapter, of the same kind and rank: its folder or .safetensors file",
    )
    train.add_argument(
        "--from-checkpoint",
        type=given_path,
        metavar="DIR",
        help="a new run that goes on from this checkpoint of another, which stays as it is",
    )
    train.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="with --resume or --from-checkpoint: go on to N steps, also after the end",
    )
    train.add_argument(
        "--restart-schedule",
        action="store_true",
        help="with them: the learning-rate schedule begins anew; else it is stretched",
    )
    train.add_argument("--resume", action="store_true", help="go on from the run's newest checkpoint")


# Options of `train` that make the two files, and mean nothing where these are given.
_SHORT_FORM = (
    "preset",
    "photos",
    "class_word",
    "token",
    "class_images",
    "class_photos",
    "prior",
    "masks",
    "captions",
    "resolution",
)


def run_train(options: argparse.Namespace) -> int:
    """Write the run's folder, or take the one to be resumed, and train it."""
    run_dir = options.run_dir.resolve()
    if options.from_adapter is not None and not (options.resume or options.from_checkpoint):
        adapter = json.dumps(str(options.from_adapter.resolve()))
        options.settings = [*(options.settings or []), f"init_lora={adapter}"]
    resumes = options.resume
    if options.resume:
        _check_resume(options)
        if options.steps is not None:
            extend_run(run_dir, options.steps, options.restart_schedule)
    elif options.from_checkpoint is not None:
        _write_branch(options)
        resumes = True
    elif options.steps is not None or options.restart_schedule:
        raise ValueError(
            "--steps and --restart-schedule go with --resume or --from-checkpoint. For a new run write --set "
            "max_train_steps=N."
        )
    elif options.config or options.datasets:
        _write_pair(options)
    elif options.photos and is_kohya_folder(options.photos):
        _write_kohya(options)
    else:
        _write_short_form(options)
    config = RunConfig.load(run_dir / "config.json")
    datasets = load_datasets(run_dir / "multidatabackend.json")
    hints = report(lint_run(config, datasets))
    if hints:
        print(hints, flush=True)
    print(announcement(config, datasets, read_held_out(run_dir)), flush=True)
    secrets = secrets_for(config.pretrained_model_name_or_path)
    return run_job_in(run_dir, "train", {"resume": resumes}, secrets=secrets)


def _check_resume(options: argparse.Namespace) -> None:
    given = ("config", "datasets", "settings", "from_adapter", "from_checkpoint", *_SHORT_FORM)
    for name in given:
        if getattr(options, name) is not None:
            option = "--set" if name == "settings" else f"--{name.replace('_', '-')}"
            raise ValueError(f"--resume goes on with the run's own settings. Leave out {option}.")
    if not (options.run_dir / "config.json").exists():
        raise ValueError(f"There is no run in {options.run_dir} to resume. Start it without --resume.")


def _write_branch(options: argparse.Namespace) -> None:
    for name in ("config", "datasets", "from_adapter", *_SHORT_FORM):
        if getattr(options, name) is not None:
            raise ValueError(
                f"--from-checkpoint goes on with the other run's own photos and settings. Leave out "
                f"--{name.replace('_', '-')}, or change a setting by --set."
            )
    checkpoint, settings = options.from_checkpoint.resolve(), options.settings or []
    branch_run(options.run_dir.resolve(), checkpoint, options.steps, options.restart_schedule, settings)


def _write_pair(options: argparse.Namespace) -> None:
    if not (options.config and options.datasets):
        raise ValueError("--config and --datasets belong together. Give both, or --preset and --photos.")
    for name in _SHORT_FORM:
        if getattr(options, name) is not None:
            raise ValueError(
                f"--config and --datasets say it all. Leave out --{name.replace('_', '-')}, or write "
                "into one of the two what it says."
            )
    copy_run(options.run_dir, options.config, options.datasets, options.settings or [])


def _write_kohya(options: argparse.Namespace) -> None:
    for name in ("class_images", "class_photos", "prior", "masks", "captions"):
        if getattr(options, name) is not None:
            raise ValueError(
                f"{options.photos} is a kohya folder, whose own folders say it all. "
                f"Leave out --{name.replace('_', '-')}."
            )
    preset = _preset(options)
    words = {"token": options.token, "class_word": options.class_word}
    config = apply_settings(preset.config.model_copy(update=words), options.settings or [])
    write_pair(options.run_dir, config, read_kohya_folder(options.photos, preset.resolution))


def _preset(options: argparse.Namespace) -> Preset:
    preset = load_preset(options.preset or "mini")
    if options.resolution is None:
        return preset
    if not 1 <= options.resolution <= MAX_EDGE_PX:
        raise ValueError(f"--resolution must be 1 to {MAX_EDGE_PX} px, got {options.resolution}.")
    return replace(preset, resolution=options.resolution)


def _check_prior(options: argparse.Namespace, num_class_images: int) -> None:
    """Raise ValueError if --prior and the options of class images contradict each other."""
    if options.prior in ("noise", "base") and not num_class_images:
        raise ValueError(
            f"--prior {options.prior} needs class images. Add --class-images N to have them drawn, or "
            "--class-photos DIR with photos of your own."
        )
    if options.prior in ("none", "image-free") and num_class_images:
        given = [f"--{name.replace('_', '-')}" for name in ("class_images", "class_photos")
                 if getattr(options, name)]  # fmt: skip
        raise ValueError(
            f"--prior {options.prior} takes no class images. Leave out "
            f"{' and '.join(given) or '--set num_class_images'}, or take --prior base or noise."
        )
    if options.class_photos and options.class_photos.resolve() == options.photos.resolve():
        raise ValueError(
            f"--class-photos is the subject's own folder {options.photos}. Name a folder of other photos of "
            "the class, or use --prior image-free, which needs none."
        )


def _write_short_form(options: argparse.Namespace) -> None:
    for name, value in (("--photos", options.photos), ("--class-word", options.class_word)):
        if value is None:
            raise ValueError(
                f"{name} is missing. Give --photos DIR and --class-word WORD, or --config and --datasets."
            )
    num_class_images = options.class_images or 0
    if num_class_images < 0:
        raise ValueError(f"--class-images must be 0 or more, got {num_class_images}.")
    if options.class_photos and options.class_images is None:
        num_class_images = len(list_photos(options.class_photos))
    preset = _preset(options)
    settings = options.settings or []
    words = {"class_word": options.class_word, "token": options.token}
    given = words | {"num_class_images": num_class_images}
    config = apply_settings(preset.config.model_copy(update=given), settings)
    _check_prior(options, config.num_class_images)
    if options.captions:
        check_caption_files(list_photos(options.photos), "leave out --captions")
    prior_dir = options.class_photos
    if config.num_class_images and prior_dir is None:
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
        prior=options.prior,
        masks_dir=options.masks,
        has_captions=bool(options.captions),
        num_class_images=num_class_images,
        prior_dir=prior_dir,
        settings=settings,
    )
