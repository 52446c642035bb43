"""Bad input: one clear sentence and exit status 2 for whatever the caller can mend."""

import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_runs import (
    QUICK,
    assert_refused,
    change,
    draw_photos,
    events_of,
    pair,
    run_command,
    write_run_folder,
)

from dreamspace.config import RunConfig

Shell = Callable[..., tuple[int, str, str]]


# What does not parse


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["COMMAND", "--help"]),
        (["trian"], ["invalid choice: 'trian'", "Did you mean 'train'?"]),
        (["train"], ["--run"]),
        (["train", "--run", "x", "--class", "dog"], ["'--class'", "Did you mean '--class-word'?"]),
        (["train", "--run", "x", "--photo", "y"], ["'--photo'", "Did you mean '--photos'?"]),
        (["prior", "--prompt", "x", "--out", "y", "--count", "many"], ["invalid int value: 'many'"]),
    ],
)
def test_what_does_not_parse_is_one_line(shell: Shell, arguments: list[str], words: list[str]) -> None:
    assert_refused(shell(*arguments), *words)


def test_help_is_no_error(shell: Shell) -> None:
    status, output, errors = shell("train", "--help")
    assert (status, errors) == (0, "")
    assert "--class-word" in output


# What the caller can mend before anything starts


def test_missing_photos_and_class_word_are_named(shell: Shell, photos: Path, tmp_path: Path) -> None:
    assert_refused(shell("train", "--class-word", "dog", "--run", tmp_path / "run"), "--photos is missing")
    assert_refused(shell("train", "--photos", photos, "--run", tmp_path / "run"), "--class-word is missing")
    assert_refused(
        shell("train", "--photos", photos, "--class-word", " ", "--run", tmp_path / "run"),
        "Say what the subject is",
    )
    assert not (tmp_path / "run").exists()


def test_folder_without_photos_is_refused(shell: Shell, tmp_path: Path) -> None:
    options = ["--class-word", "dog", "--run", tmp_path / "run"]
    assert_refused(shell("train", "--photos", tmp_path / "nowhere", *options), "There is no folder")
    (tmp_path / "empty").mkdir()
    assert_refused(shell("train", "--photos", tmp_path / "empty", *options), "holds no photo", "JPEG")
    (tmp_path / "file").touch()
    assert_refused(shell("train", "--photos", tmp_path / "file", *options), "is not a folder")
    assert not (tmp_path / "run").exists()


def test_unknown_preset_names_the_nearest(shell: Shell, short: list) -> None:
    assert_refused(shell(*short, "--preset", "minni"), "no preset 'minni'", "Did you mean 'mini'?")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("max_train_stps=4", ["there is no key 'max_train_stps'", "Did you mean 'max_train_steps'?"]),
        ("max_train_steps=0", ["max_train_steps must be at least 1, got 0"]),
        ("max_train_steps=99999999999999999999", ["max_train_steps must be at most 1000000"]),
        ("lora_rank=10000000", ["lora_rank must be at most 1024, got 10000000"]),
        (f"token={'x' * 3000}", ["token must be a text of at most 100 characters"]),
        ("learning_rate=fast", ["learning_rate must be a number"]),
        ("learning_rate=1e30", ["learning_rate must be at most 10, got 1e+30"]),
        ("resolution=50", ["'resolution' is a key of a dataset", "multidatabackend.json", "--datasets"]),
        ("repeats=-1", ["'repeats' is a key of a dataset", "multidatabackend.json", "--datasets"]),
        ("validation_resolution=99999", ["validation_resolution must be at most 8192 px"]),
        (f"validation_prompts={'[' * 90_000}", ["validation_prompts must be a list"]),
        ("max_train_steps", ["--set takes key=value, got 'max_train_steps'"]),
    ],
)
def test_wrong_setting_is_named(
    shell: Shell, short: list, setting: str, words: list[str], tmp_path: Path
) -> None:
    assert_refused(shell(*short, "--set", setting), *words)
    assert not (tmp_path / "run").exists()


def test_wrong_key_or_value_in_a_file_names_file_and_key(shell: Shell, files: Path, tmp_path: Path) -> None:
    change(files / "config.json", lora_rnk=4)
    assert_refused(
        shell(*pair(files, tmp_path)), "config.json: there is no key 'lora_rnk'", "Did you mean 'lora_rank'?"
    )
    write_run_folder(files, tmp_path, files)
    change(files / "config.json", max_train_steps=0)
    assert_refused(shell(*pair(files, tmp_path)), "config.json: max_train_steps must be at least 1, got 0")
    write_run_folder(files, tmp_path, files)
    change(files / "multidatabackend.json", instance_data_dir="nowhere")
    assert_refused(shell(*pair(files, tmp_path)), "dataset 'subject' has no folder nowhere")
    (files / "config.json").write_text("{")
    assert_refused(shell(*pair(files, tmp_path)), "config.json is not valid JSON at line 1")
    (files / "config.json").unlink()
    assert_refused(shell(*pair(files, tmp_path)), "There is no file")
    assert not (tmp_path / "run").exists()


def test_options_that_do_not_belong_together_are_refused(
    shell: Shell, short: list, files: Path, tmp_path: Path
) -> None:
    assert_refused(
        shell(*pair(files, tmp_path)[:3], "--run", tmp_path), "--config and --datasets belong together"
    )
    assert_refused(shell(*pair(files, tmp_path), "--token", "sks"), "Leave out --token")
    assert_refused(shell(*pair(files, tmp_path), "--resolution", 64), "Leave out --resolution")
    assert_refused(shell(*short, "--class-images", "-1"), "--class-images must be 0 or more, got -1")


@pytest.mark.parametrize("edge", ["0", "-64", "100000"])
def test_resolution_that_no_picture_has_is_refused(shell: Shell, short: list, edge: str) -> None:
    assert_refused(shell(*short, "--resolution", edge), f"--resolution must be 1 to 8192 px, got {edge}.")


def test_prior_and_class_images_that_contradict_each_other_name_what_was_typed(
    shell: Shell, short: list, class_photos: Path, photos: Path, tmp_path: Path
) -> None:
    for prior in ("noise", "base"):
        refused = shell(*short, "--prior", prior)
        assert_refused(refused, f"--prior {prior} needs", "--class-images N", "--class-photos DIR")
    for given, named in (
        (["--class-images", 4], "--class-images,"),
        (["--class-photos", class_photos], "--class-photos,"),
        (["--class-photos", class_photos, "--class-images", 2], "--class-images and --class-photos,"),
        (["--set", "num_class_images=4"], "--set num_class_images,"),
    ):
        refused = shell(*short, "--prior", "image-free", *given)
        assert_refused(refused, f"--prior image-free takes no class images. Leave out {named}")
    refused = shell(*short, "--class-photos", f"{photos}/../{photos.name}")
    assert_refused(refused, "--class-photos is the subject's own folder", "--prior image-free")
    assert not (tmp_path / "run").exists()


def test_folder_of_masks_that_is_missing_or_empty_is_named(shell: Shell, short: list, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    assert_refused(shell(*short, "--masks", masks), f"There is no folder {masks}")
    masks.mkdir()
    assert_refused(shell(*short, "--masks", masks), f"The folder {masks} holds no mask")
    assert not (tmp_path / "run").exists()


def test_missing_captions_of_the_short_form_name_its_option(
    shell: Shell, short: list, files: Path, tmp_path: Path
) -> None:
    assert_refused(shell(*short, "--captions"), "such as 00.txt, or leave out --captions.")
    change(files / "multidatabackend.json", caption_strategy="textfile")
    assert_refused(shell(*pair(files, tmp_path)), "such as 00.txt, or set caption_strategy to")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--run", "x", "--photos", ""],
        ["train", "--run", " "],
        ["mask", ""],
        ["prior", "--prompt", "x", "--out", "x", "--model", ""],
        ["generate", "--prompt", "x", "--adapter", "x", "--out", ""],
        ["import-simpletuner", "x", ""],
        ["publish", "", "--repo", "a/b"],
    ],
)
def test_empty_path_is_not_the_current_folder(shell: Shell, arguments: list[str]) -> None:
    assert_refused(shell(*arguments), "it is empty, name a folder or a file")


@pytest.mark.parametrize("name", ["config.json", "multidatabackend.json"])
@pytest.mark.parametrize(
    ("content", "words"),
    [(b"[" * 100_000, "more than 50 deep"), (b"\xff\xfe", "no text in UTF-8"), (b"", "is empty")],
)
def test_file_of_a_pair_that_cannot_be_read_is_named(
    shell: Shell, files: Path, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (files / name).write_bytes(content)
    assert_refused(shell(*pair(files, tmp_path)), f"{files / name} ", words)


@pytest.mark.parametrize(
    ("option", "number"), [("--grow", "-5000"), ("--grow", "501"), ("--feather", "1e9"), ("--feather", "nan")]
)
def test_absurd_shaping_of_masks_is_refused(
    shell: Shell, photos: Path, tmp_path: Path, option: str, number: str
) -> None:
    refused = shell("mask", photos, "--out", tmp_path / "masks", option, number)
    assert_refused(refused, "500 px")
    assert not (tmp_path / "masks").exists()


def test_folder_that_holds_a_run_is_not_overwritten(
    shell: Shell, short: list, files: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("mine")
    assert_refused(shell(*short), "holds a run already", "--resume")
    assert_refused(shell(*pair(files, tmp_path)), "holds a run already", "--resume")
    assert (tmp_path / "run" / "config.json").read_text() == "mine"


def test_resume_takes_an_existing_run_and_no_settings(shell: Shell, tmp_path: Path) -> None:
    resume = ["train", "--run", tmp_path / "run", "--resume"]
    assert_refused(shell(*resume), "There is no run in", "Start it without --resume")
    assert_refused(shell(*resume, "--set", "seed=1"), "--resume goes on with", "Leave out --set")
    assert_refused(shell(*resume, "--class-images", "4"), "Leave out --class-images")


def test_run_folder_that_cannot_be_made_is_refused(shell: Shell, short: list, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_refused(shell(*short[:-1], tmp_path / "file" / "run"), "cannot be made: Not a directory")
    assert_refused(shell(*short[:-1], tmp_path / "file"), "cannot be made: File exists")
    assert_refused(shell(*short[:-1], tmp_path / ("a" * 300)), "cannot be used: File name too long")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write and read everywhere")
def test_folders_without_rights_are_refused(shell: Shell, short: list, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    assert_refused(shell(*short[:-1], locked / "run"), "cannot be made: Permission denied")
    assert_refused(shell("train", "--photos", locked, *short[3:]), "may not be read")
    locked.chmod(0o500)
    assert_refused(shell(*short[:-1], locked), "may not be written to")


def test_folders_without_rights_are_refused_even_where_root_cannot_show_it(
    shell: Shell, short: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(path: Path, *arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", deny)
        assert_refused(shell(*short), "may not be read", "Change its permissions")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", deny)
        assert_refused(shell(*short), "cannot be made: Permission denied", "Choose another one")
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)
        assert_refused(shell(*short), "may not be written to")
        assert_refused(shell("prior", "--prompt", "x", "--out", tmp_path / "out"), "may not be written to")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prior", "--count", "0"], ["--count must be 1 or more, got 0"]),
        (["prior", "--seed", "-1"], ["--seed must be 0 to 4294967295, got -1"]),
        (
            ["generate", "--run", "x", "--seed", str(2**32)],
            ["--seed must be 0 to 4294967295, got 4294967296"],
        ),
        (["generate"], ["Give --run DIR, or --model and --adapter DIR"]),
        (["generate", "--run", "x", "--adapter", "y"], ["Leave out --model and --adapter"]),
        (["generate", "--adapter", "y", "--checkpoint", "4"], ["--checkpoint belongs to --run"]),
        (["generate", "--run", "x", "--steps", "0"], ["--steps must be 1 or more, got 0"]),
        (["generate", "--run", "x", "--guidance", "nan"], ["--guidance must be 0 or more, got nan"]),
    ],
)
def test_wrong_numbers_and_pairs_of_options(
    shell: Shell, arguments: list[str], words: list[str], tmp_path: Path
) -> None:
    assert_refused(shell(*arguments, "--prompt", "x", "--out", tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["prior", "generate"])
def test_empty_prompt_is_refused(shell: Shell, command: str, tmp_path: Path) -> None:
    options = ["--adapter", tmp_path] if command == "generate" else []
    assert_refused(shell(command, *options, "--prompt", " ", "--out", tmp_path / "out"), "--prompt is empty")


# What only the job finds out


def test_photos_that_are_all_refused_end_with_the_reason(shell: Shell, files: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "a.png").write_text("no picture")
    change(files / "multidatabackend.json", instance_data_dir=str(folder))
    assert_refused(shell(*pair(files, tmp_path)), "None of the 1 photos", "a.png: this is not a JPEG")


def test_refused_photo_is_a_warning_and_the_rest_trains(shell: Shell, files: Path, tmp_path: Path) -> None:
    folder = draw_photos(tmp_path / "mixed", 3)
    (folder / "bad.png").write_text("no picture")
    change(files / "multidatabackend.json", instance_data_dir=str(folder))
    status, output, errors = shell(*pair(files, tmp_path))
    assert status == 0
    assert errors.startswith("Warning: Left out bad.png: this is not a JPEG")
    assert "Rows: 100% subject (3 photos, 0 class images)." in output
    assert "step 3 of 3" in output
    assert f"Done: {tmp_path / 'run' / 'adapter'}" in output


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        (
            "multidatabackend.json",
            {"resolution": 100},
            ["Dataset 'subject'", "multiple of 16 px", "got 100", "Try 96"],
        ),
        ("config.json", {"validation_resolution": "100"}, ["validation_resolution", "Try 96"]),
        ("config.json", {"num_class_images": 4}, ["no dataset has is_regularisation_data"]),
        ("config.json", {"pretrained_model_name_or_path": "a/b/c"}, ["no model 'a/b/c'", "Hub id such as"]),
        ("config.json", {"pretrained_model_name_or_path": "minni"}, ["Did you mean 'mini'?"]),
        ("config.json", {"pretrained_model_name_or_path": "/tmp"}, ["holds no model_index.json"]),
    ],
)
def test_what_does_not_fit_the_model_or_is_none(
    shell: Shell, files: Path, file: str, values: dict, words: list[str], tmp_path: Path
) -> None:
    change(files / file, **values)
    assert_refused(shell(*pair(files, tmp_path)), *words)
    (failed,) = events_of(tmp_path / "run", "failed")
    assert failed["error"] == "ValueError"


def test_corrected_command_starts_a_refused_run_anew(shell: Shell, files: Path, tmp_path: Path) -> None:
    command = pair(files, tmp_path)
    assert_refused(shell(*command, "--set", "optimizer=prodigy"), "Set learning_rate to 1.")
    result = shell(*command)
    assert (result.status, result.errors) == (0, "")
    assert RunConfig.load(tmp_path / "run" / "config.json").optimizer == "adamw"
    assert events_of(tmp_path / "run", "failed") == []
    assert [event["step"] for event in events_of(tmp_path / "run", "done")] == [3]
    assert_refused(shell(*command), "holds a run already", "--resume")


def test_nearly_full_disk_is_named_with_its_figures(
    shell: Shell, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("Usage", "total used free")(10**9, 10**9, 2_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert_refused(shell(*pair(files, tmp_path)), "has 2 MB free and a checkpoint needs")


def test_adapter_or_checkpoint_that_is_not_there(
    shell: Shell, finished_run: Path, files: Path, tmp_path: Path
) -> None:
    options = ["--prompt", "x", "--out", tmp_path / "out"]
    assert_refused(shell("generate", "--run", files, *options), "has no finished adapter")
    assert_refused(
        shell("generate", "--run", finished_run, "--checkpoint", 5, *options),
        "no checkpoint at step 5",
        "4, 8, 12, 16, 20, 24",
    )
    assert_refused(shell("generate", "--adapter", tmp_path, *options), "There is no adapter in")
    assert_refused(shell("generate", "--run", tmp_path / "none", *options), "There is no file")


def test_run_that_changes_nothing_fails_through_the_real_command(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    settings = QUICK | {"learning_rate": 1e-12}
    options = write_run_folder(tmp_path / "files", tiny_model, photos, **settings)
    result = run_command("train", *options, "--run", tmp_path / "run")
    assert_refused(
        (result.returncode, result.stdout, result.stderr), "which is nothing. Train longer than 3 steps"
    )
    assert not (tmp_path / "run" / "adapter").exists()
