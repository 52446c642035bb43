"""Class images that are asked for: drawn into the workspace alone, shared by runs, by the prompts of one."""

import os
from pathlib import Path

import pytest
import torch
from tiny_runs import CLASS_PROMPT, cropped_dataset, draw_photos, tiny_config

from dreamspace.config import DatasetConfig
from dreamspace.jobs.events import EventWriter, read_events
from dreamspace.models.base import BaseModel, open_model
from dreamspace.training.class_folder import class_dataset, fill_class_folder


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> BaseModel:
    return open_model(tiny_config(tiny_model), tmp_path / "cache", torch.device("cpu"))


def prior(folder: Path, **settings) -> DatasetConfig:
    values = {"id": "prior", "instance_prompt": CLASS_PROMPT, "is_regularisation_data": True} | settings
    return cropped_dataset(folder, **values)


def fill(model: BaseModel, datasets: list[DatasetConfig], job_dir: Path, **settings) -> None:
    config = tiny_config(model.folder, **settings)
    dataset = class_dataset(config, datasets, job_dir / "priors")
    if dataset is not None:
        fill_class_folder(config, dataset, model, EventWriter(job_dir), lambda: False)


def test_class_images_fill_up_what_the_user_brought(model: BaseModel, photos: Path, tmp_path: Path) -> None:
    folder = draw_photos(tmp_path / "priors" / "classes", 2)
    os.rename(folder / "00.png", folder / f"{'ab' * 8}.png")  # named by content, as the app names uploads
    (folder / "notes.txt").write_text("no image")
    own = sorted(folder.glob("*.png"))
    fill(model, [cropped_dataset(photos), prior(folder)], tmp_path, num_class_images=3)
    assert len(list(folder.glob("*.png"))) == 3
    assert set(own) < set(folder.glob("*.png"))
    other = {"seed": 7, "validation_num_inference_steps": 3, "validation_guidance": 1, "num_class_images": 3}
    fill(model, [cropped_dataset(photos), prior(folder)], tmp_path, **other)
    assert len(list(folder.glob("*.png"))) == 3, "another run shares them"
    stages = [e["message"] for e in read_events(tmp_path / "events.jsonl")[0] if e["kind"] == "stage"]
    assert stages == ["Drawing class images: 2 of 3.", "Drawing class images: 3 of 3."]


def test_class_images_do_not_follow_the_settings_of_the_run(
    model: BaseModel, photos: Path, tmp_path: Path
) -> None:
    drawn = []
    for name, steps in (("one", 1), ("two", 2)):
        folder = tmp_path / "priors" / name
        folder.mkdir(parents=True)
        settings = {"validation_num_inference_steps": steps, "seed": steps}
        fill(model, [cropped_dataset(photos), prior(folder)], tmp_path, num_class_images=1, **settings)
        (image,) = folder.iterdir()
        drawn.append((image.name, image.read_bytes()))
    assert drawn[0] == drawn[1]


def test_folder_of_the_user_is_only_read(model: BaseModel, photos: Path, tmp_path: Path) -> None:
    folder = draw_photos(tmp_path / "mine", 2)
    sentence = r"num_class_images is 3, but .*mine holds 2 photos, .* or set num_class_images to 2\."
    with pytest.raises(ValueError, match=sentence):
        fill(model, [cropped_dataset(photos), prior(folder)], tmp_path, num_class_images=3)
    fill(model, [cropped_dataset(photos), prior(folder)], tmp_path, num_class_images=2)
    assert len(list(folder.iterdir())) == 2


def test_class_images_without_a_dataset_for_them_are_refused(
    model: BaseModel, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="num_class_images is 8, but no dataset has is_regularisation_data"):
        fill(model, [cropped_dataset(photos)], tmp_path, num_class_images=8)


def test_first_folder_of_ours_is_filled_and_nothing_where_none_is_asked_for(
    photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "priors" / "dogs").mkdir(parents=True)
    datasets = [
        cropped_dataset(photos),
        prior(photos, id="image-free"),
        prior(tmp_path / "priors" / "dogs", id="never", probability=0),
        prior(tmp_path / "priors" / "dogs"),
    ]
    wanted = class_dataset(tiny_config(Path("mini"), num_class_images=8), datasets, tmp_path / "priors")
    assert wanted is datasets[3]
    assert class_dataset(tiny_config(Path("mini")), datasets, tmp_path / "priors") is None


def test_images_without_a_prompt_to_draw_them_by_are_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "priors").mkdir()
    captioned = prior(tmp_path / "priors", instance_prompt=None, caption_strategy="filename")
    config = tiny_config(Path("mini"), num_class_images=8)
    with pytest.raises(ValueError, match=r"'prior' are drawn from its instance_prompt, and it has none\."):
        class_dataset(config, [cropped_dataset(photos), captioned], tmp_path / "priors")
