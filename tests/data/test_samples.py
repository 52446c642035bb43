"""Samples: the photos of a dataset with captions and geometry; a bad file never costs the others."""

import os
from pathlib import Path

import pytest
from PIL import Image

from dreamspace.config import DatasetConfig
from dreamspace.data.samples import read_samples


def dataset(folder: Path, **settings) -> DatasetConfig:
    values = {"id": "subject", "instance_prompt": "a photo of a sks dog", "resolution": 64} | settings
    return DatasetConfig(instance_data_dir=folder, **values)


def test_samples_follow_the_file_names_and_carry_captions(photos: Path) -> None:
    samples, warnings = read_samples(dataset(photos, instance_prompt=["one", "two"]), 16)
    assert [sample.path.name for sample in samples] == ["00.png", "01.png", "02.png", "03.png"]
    assert {sample.captions for sample in samples} == {("one", "two")}
    assert len({sample.content_id for sample in samples}) == 4
    assert not any(sample.uses_base_target for sample in samples)
    assert warnings == []


def test_picture_is_the_centre_crop(photos: Path) -> None:
    sample = read_samples(dataset(photos), 16)[0][1]
    with Image.open(photos / "01.png") as photo:
        assert sample.picture().tobytes() == photo.crop((8, 0, 72, 64)).tobytes()


def test_class_images_use_the_base_target(class_photos: Path) -> None:
    samples, _ = read_samples(dataset(class_photos, is_regularisation_data=True), 16)
    assert all(sample.uses_base_target for sample in samples)


def test_first_photos_are_taken_when_they_are_limited(photos: Path) -> None:
    samples, _ = read_samples(dataset(photos, max_num_samples=2), 16)
    assert [sample.path.name for sample in samples] == ["00.png", "01.png"]


def test_refused_photo_is_named_and_the_others_are_kept(photos: Path, tmp_path: Path) -> None:
    for path in photos.iterdir():
        os.link(path, tmp_path / path.name)
    (tmp_path / "01b.png").write_text("no picture")
    samples, warnings = read_samples(dataset(tmp_path), 16)
    assert len(samples) == 4
    assert len(warnings) == 1
    assert warnings[0].startswith("Left out 01b.png: this is not a JPEG")


def test_folder_whose_photos_are_all_refused_is_refused_with_a_reason(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_text("no picture")
    with pytest.raises(ValueError, match=r"None of the 2 photos in .* can be used\. Left out a\.png: "):
        read_samples(dataset(tmp_path), 16)


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no photo"):
        read_samples(dataset(tmp_path), 16)


def test_resolution_that_does_not_fit_names_the_nearest(photos: Path) -> None:
    with pytest.raises(ValueError, match=r"multiple of 16 px for this model, got 100\. Try 96\."):
        read_samples(dataset(photos, resolution=100), 16)
