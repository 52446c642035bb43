"""The two files of a new run: words, prompts and balance."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamspace.config import DatasetConfig, RunConfig, load_datasets, load_preset
from dreamspace.jobs.new_run import write_run


def new_run(tmp_path: Path, **options: Any) -> tuple[RunConfig, list[DatasetConfig]]:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(6):
        Image.new("RGB", (64, 64), (40 * number, 0, 0)).save(photos / f"{number}.png")
    options = {"class_word": "dog", "token": "sks"} | options
    run_dir = tmp_path / "run"
    config = write_run(run_dir, load_preset("mini"), photos, **options)
    assert RunConfig.load(run_dir / "config.json") == config
    return config, load_datasets(run_dir / "multidatabackend.json")


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
    assert (subject.repeats, prior.repeats) == (3, 0), "6 photos, 4 times, against 25 class images"
    assert prior.is_regularisation_data
    assert prior.instance_prompts == ["a photo of a dog"]


def test_nothing_that_says_what_the_subject_is_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="class_word is empty"):
        new_run(tmp_path, class_word=" ")
