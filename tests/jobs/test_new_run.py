"""The two files of a new run: words, prompts and balance."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_runs import change, draw_photos

from dreamspace.config import DatasetConfig, RunConfig, load_datasets, load_preset, prior_of
from dreamspace.data.samples import read_samples
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.job import ENDED_FILE, Ended, Job, ProcessRecord
from dreamspace.jobs.new_run import copy_run, prior_folder, write_run
from dreamspace.jobs.process import ProcessIdentity
from dreamspace.jobs.workspace import Workspace


def new_run(tmp_path: Path, **options: Any) -> tuple[RunConfig, list[DatasetConfig]]:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(6):
        Image.new("RGB", (64, 64), (40 * number, 0, 0)).save(photos / f"{number}.png")
    options = {"class_word": "dog", "token": "sks"} | options
    run_dir = tmp_path / "run"
    options["settings"] = ["held_out_photos=false", *options.get("settings", [])]
    config = write_run(run_dir, load_preset("mini"), photos, **options)
    assert RunConfig.load(run_dir / "config.json") == config
    return config, load_datasets(run_dir / "multidatabackend.json")


def refused_run(tmp_path: Path) -> Path:
    """A run whose job ended before its first step, with all that such a job leaves."""
    new_run(tmp_path)
    run_dir = tmp_path / "run"
    Job("train").write(run_dir)
    events = EventWriter(run_dir)
    events.write("failed", error="ValueError", message="Refused.", hint="")
    events.close()
    for left in (
        "control/stop",
        "validation/step-000000/0.png",
        "checkpoints/.step-000001.new/x",
        ".adapter.new/x",
    ):
        (run_dir / left).parent.mkdir(parents=True)
        (run_dir / left).touch()
    for left in ("log.txt", "notes.md"):
        (run_dir / left).touch()
    Ended(2, None, time.time(), "exited").write(run_dir)
    return run_dir


def write_again(tmp_path: Path) -> None:
    write_run(tmp_path / "run", load_preset("mini"), tmp_path / "photos", class_word="cat")


def test_folder_in_which_nothing_was_trained_is_written_anew(tmp_path: Path) -> None:
    run_dir = refused_run(tmp_path)
    write_again(tmp_path)
    assert RunConfig.load(run_dir / "config.json").class_word == "cat"
    left = sorted(path.name for path in run_dir.iterdir())
    assert left == ["config.json", "multidatabackend.json", "notes.md"], "nothing of the old attempt"


def test_files_of_ones_own_beside_a_refused_run_stay(tmp_path: Path) -> None:
    run_dir = refused_run(tmp_path)
    own = [run_dir / "validation" / "mine.jpg", run_dir / "checkpoints" / "sd15.safetensors"]
    for path in own:
        path.touch()
    write_again(tmp_path)
    assert all(path.exists() for path in own)
    assert not (run_dir / "validation" / "step-000000").exists()


def test_job_of_another_kind_is_not_a_run_to_be_cleared(tmp_path: Path) -> None:
    run_dir = refused_run(tmp_path)
    Job("generate").write(run_dir)
    with pytest.raises(ValueError, match="holds a run already"):
        write_again(tmp_path)
    (run_dir / "config.json").unlink()
    write_again(tmp_path)
    assert (run_dir / "validation" / "step-000000" / "0.png").exists()


def test_refused_run_stays_as_it_is_where_the_new_settings_are_wrong(tmp_path: Path) -> None:
    run_dir = refused_run(tmp_path)
    before = sorted(run_dir.rglob("*"))
    with pytest.raises(ValueError, match="max_train_steps"):
        write_run(
            run_dir,
            load_preset("mini"),
            tmp_path / "photos",
            class_word="cat",
            settings=["max_train_steps=0"],
        )
    assert sorted(run_dir.rglob("*")) == before
    assert RunConfig.load(run_dir / "config.json").class_word == "dog"


@pytest.mark.parametrize("trained", ["checkpoints/step-000004", "adapter", "adapter-ema"])
def test_run_of_which_something_was_trained_is_not_overwritten(tmp_path: Path, trained: str) -> None:
    (refused_run(tmp_path) / trained).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"holds a run already\. Resume it with --resume"):
        write_again(tmp_path)


def test_run_whose_job_waits_or_runs_is_not_overwritten(tmp_path: Path) -> None:
    run_dir = refused_run(tmp_path)
    (run_dir / ENDED_FILE).unlink()
    ProcessRecord(supervisor=ProcessIdentity.of(os.getpid())).write(run_dir)
    with pytest.raises(ValueError, match="holds a run already"):
        write_again(tmp_path)
    (run_dir / "process.json").unlink()
    Job("train", submitted=time.time(), first_seq=1).write(run_dir)
    with pytest.raises(ValueError, match="holds a run already"):
        write_again(tmp_path)
    assert RunConfig.load(run_dir / "config.json").class_word == "dog"


def test_words_that_settings_change_reach_captions_and_prompts(tmp_path: Path) -> None:
    config, (subject,) = new_run(tmp_path, settings=["token=zwx", "class_word=cat"])
    assert subject.instance_prompts == ["a photo of a zwx cat"]
    assert config.validation_prompts[0] == "a photo of a zwx cat under water"
    assert config.validation_prompts[-1] == "a photo of a cat"


def test_prompts_that_settings_give_are_taken_as_they_are(tmp_path: Path) -> None:
    config, _ = new_run(tmp_path, settings=["validation_prompts=[]"])
    assert config.validation_prompts == []


def test_whichever_are_fewer_are_repeated(tmp_path: Path) -> None:
    config, (subject, prior) = new_run(tmp_path, num_class_images=25, prior_dir=tmp_path / "prior")
    assert config.num_class_images == 25
    assert (subject.repeats + 1, prior.repeats + 1) == (4 * 4, 4), "4 x 6 against 25, in full steps of 4"
    assert prior.is_regularisation_data
    assert prior.instance_prompts == ["a photo of a dog"]


def test_images_of_earlier_runs_do_not_tip_the_balance(tmp_path: Path) -> None:
    prior_dir = draw_photos(tmp_path / "prior", 20)
    options = {"num_class_images": 4, "prior_dir": prior_dir, "settings": ["num_class_images=6"]}
    config, (subject, prior) = new_run(tmp_path, **options)
    assert (config.num_class_images, subject.repeats, prior.repeats) == (6, 0, 0), "settings decide"
    assert len(read_samples(prior, [prior], 16, 0)[0]) == 6


@pytest.mark.parametrize(
    ("prior", "target", "of_photos"),
    [("image-free", "base", True), ("noise", "noise", False), ("base", "base", False)],
)
def test_the_dial_of_the_prior_is_datasets(tmp_path: Path, prior: str, target: str, of_photos: bool) -> None:
    images = {} if of_photos else {"num_class_images": 6, "prior_dir": tmp_path / "prior"}
    prompts = ["a photo of a dog", "a dog"]
    config, (subject, found) = new_run(tmp_path, prior=prior, class_prompts=prompts, **images)
    assert found.is_regularisation_data
    assert found.regularisation_target == target
    assert (found.instance_data_dir == subject.instance_data_dir) == of_photos
    assert found.instance_prompts == prompts
    assert config.num_class_images == (0 if of_photos else 6)
    assert (subject.repeats, found.repeats) == (0, 0), "6 + 6 rows are three steps of 4"
    assert prior_of([subject, found]) == prior


def test_a_photo_that_is_held_out_is_no_part_of_the_balance(tmp_path: Path) -> None:
    held_out = {"settings": ["held_out_photos=true"]}
    _, (subject, prior) = new_run(tmp_path, num_class_images=5, prior_dir=tmp_path / "prior", **held_out)
    assert (subject.repeats + 1, prior.repeats + 1) == (2, 2), "twice 5 and 5 rows are five steps of 4"


def test_no_prior_is_one_dataset_in_full_steps(tmp_path: Path) -> None:
    _, (subject,) = new_run(tmp_path, prior="none")
    assert prior_of([subject]) == "none"
    assert subject.repeats == 1, "12 rows are three steps of 4"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"prior": "noise"}, "The prior 'noise' needs class images, and their number is 0."),
        ({"prior": "image-free", "num_class_images": 4}, "'image-free' takes no class images"),
    ],
)
def test_class_images_that_do_not_fit_the_prior_are_refused(
    tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        new_run(tmp_path, prior_dir=tmp_path / "prior", **options)
    assert not (tmp_path / "run").exists()


def test_masks_of_the_photos_reach_the_datasets(tmp_path: Path) -> None:
    masks_dir = tmp_path / "masks"
    masks_dir.mkdir()
    for number in range(6):
        Image.new("L", (64, 64), 255).save(masks_dir / f"{number}.png")
    _, (subject, masks) = new_run(tmp_path, masks_dir=masks_dir)
    assert (subject.caption_strategy, subject.conditioning_data) == ("instanceprompt", "masks")
    assert (masks.instance_data_dir, masks.conditioning_type) == (masks_dir, "mask")


def test_missing_masks_and_captions_are_named_before_anything_is_written(tmp_path: Path) -> None:
    masks_dir = tmp_path / "masks"
    with pytest.raises(ValueError, match=rf"There is no folder {masks_dir}\."):
        new_run(tmp_path, masks_dir=masks_dir)
    shutil.rmtree(tmp_path / "photos")
    masks_dir.mkdir()
    with pytest.raises(ValueError, match=rf"The folder {masks_dir} holds no mask\."):
        new_run(tmp_path, masks_dir=masks_dir)
    shutil.rmtree(tmp_path / "photos")
    Image.new("L", (64, 64), 255).save(masks_dir / "1.png")
    with pytest.raises(ValueError, match=r"photo 0\.png has no mask"):
        new_run(tmp_path, masks_dir=masks_dir)
    with pytest.raises(ValueError, match=r"0\.png"):
        write_run(
            tmp_path / "run", load_preset("mini"), tmp_path / "photos", class_word="dog", has_captions=True
        )
    assert not (tmp_path / "run").exists()


def test_class_images_that_a_setting_takes_back_leave_no_folder(tmp_path: Path) -> None:
    options = {"num_class_images": 4, "prior_dir": tmp_path / "prior", "settings": ["num_class_images=0"]}
    config, datasets = new_run(tmp_path, **options)
    assert config.num_class_images == 0
    assert [dataset.id for dataset in datasets] == ["subject"]
    assert not (tmp_path / "prior").exists()


TOKEN = "hf_canaryTokenThatMustNeverBeSeen42"


@pytest.mark.parametrize(
    "options",
    [
        {"token": TOKEN},
        {"class_word": TOKEN, "num_class_images": 2},
        {"settings": [f"validation_negative_prompt={TOKEN}"]},
    ],
)
def test_access_token_never_reaches_the_disk(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="The settings of run hold an access token") as caught:
        new_run(tmp_path, **{"prior_dir": tmp_path / "priors" / TOKEN} | options)
    assert TOKEN not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"], "not even a folder was made"


def test_access_token_of_a_dataset_is_not_copied(files: Path, tmp_path: Path) -> None:
    change(files / "multidatabackend.json", instance_prompt=TOKEN)
    with pytest.raises(ValueError, match="hold an access token"):
        copy_run(tmp_path / "run", files / "config.json", files / "multidatabackend.json", [])
    assert not (tmp_path / "run").exists()


def test_model_folder_becomes_absolute(
    files: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_model.parent)
    change(files / "config.json", pretrained_model_name_or_path=tiny_model.name)
    config = copy_run(tmp_path / "run", files / "config.json", files / "multidatabackend.json", [])
    assert config.pretrained_model_name_or_path == str(tiny_model)


def test_prior_folder_is_of_one_model_and_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    workspace = Workspace(tmp_path / "workspace")
    for folder in ("x/sd", "y/sd", "mini"):
        (tmp_path / folder).mkdir(parents=True)
    models = ["mini", "a/sd", "b/sd", "a-sd/sd", "a/sd.1", "x/sd", "y/sd", ".."]
    folders = [prior_folder(workspace, model, "hot dog") for model in models]
    assert len(set(folders)) == len(models)
    assert folders[:2] == [workspace.priors / "mini" / "hot-dog", workspace.priors / "a--sd" / "hot-dog"]
    assert folders[5].parent.name.startswith("sd-")
    assert prior_folder(workspace, str(tmp_path / "x" / "sd"), "hot dog") == folders[5]
    assert {folder.resolve().parents[1] for folder in folders} == {workspace.priors}
    assert prior_folder(workspace, "a/sd", "../..").resolve().is_relative_to(workspace.priors / "a--sd")


def test_nothing_that_says_what_the_subject_is_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="class_word is empty"):
        new_run(tmp_path, class_word=" ")
