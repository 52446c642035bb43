"""Kohya's folders: "10_sks dog" is shown 10 times an epoch."""

from pathlib import Path

import pytest
from PIL import Image

from dreamspace.config import check_datasets
from dreamspace.data.kohya import is_kohya_folder, read_kohya_folder


def photos(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names or ("a.png", "b.jpg"):
        Image.new("RGB", (8, 8)).save(folder / name)
    return folder


def test_passes_words_and_class_images(tmp_path: Path) -> None:
    photos(tmp_path / "img" / "10_sks dog")
    photos(tmp_path / "img" / "3_sks dog in profile ")
    photos(tmp_path / "img" / "0_left out")
    photos(tmp_path / "reg" / "1_dog")
    (tmp_path / "img" / "5_empty").mkdir()
    first, second, class_images = read_kohya_folder(tmp_path, 512)
    assert (first.id, first.repeats, first.instance_prompt) == ("10_sks dog", 9, "sks dog")
    assert (second.repeats, second.instance_prompt) == (2, "sks dog in profile")
    assert (first.resolution, first.resolution_type, first.crop) == (512, "pixel", True)
    assert not first.is_regularisation_data
    assert (class_images.id, class_images.repeats, class_images.instance_prompt) == ("reg 1_dog", 0, "dog")
    assert (class_images.is_regularisation_data, class_images.regularisation_target) == (True, "noise")
    check_datasets([first, second, class_images])


@pytest.mark.parametrize("name", ["reg", "reg_data"])
def test_folder_of_photos_itself_with_class_images_beside_it(tmp_path: Path, name: str) -> None:
    photos(tmp_path / "train" / "10_sks dog")
    photos(tmp_path / name / "1_dog")
    found = read_kohya_folder(tmp_path / "train", 512)
    assert [(d.id, d.is_regularisation_data) for d in found] == [
        ("10_sks dog", False),
        (f"{name} 1_dog", True),
    ]


def test_captions_are_taken_where_every_photo_has_one(tmp_path: Path) -> None:
    folder = photos(tmp_path / "10_sks dog")
    (folder / "a.txt").write_text("a sks dog on grass")
    (dataset,) = read_kohya_folder(tmp_path, 512)
    assert dataset.caption_strategy == "instanceprompt"
    (folder / "b.txt").write_text("a sks dog in snow")
    (dataset,) = read_kohya_folder(tmp_path, 512)
    assert (dataset.caption_strategy, dataset.instance_prompt) == ("textfile", "sks dog")


def test_captions_that_only_kohya_reads_are_not_passed_over(tmp_path: Path) -> None:
    (photos(tmp_path / "10_sks dog") / "a.caption").write_text("a sks dog")
    with pytest.raises(
        ValueError, match=r"captions in \.caption files, such as a\.caption\. Copy them to \.txt"
    ):
        read_kohya_folder(tmp_path, 512)


def test_other_folders_are_told_apart(tmp_path: Path) -> None:
    plain = photos(tmp_path / "plain")
    photos(plain / "10_sks dog")
    photos(tmp_path / "words" / "sks dog")
    (tmp_path / "empty" / "10_sks dog").mkdir(parents=True)
    for name in ("plain", "words", "empty", "nowhere"):
        assert not is_kohya_folder(tmp_path / name)
    with pytest.raises(
        ValueError, match=r"plain is no kohya folder\. It needs folders of photos in it, such as"
    ):
        read_kohya_folder(plain, 512)
    photos(tmp_path / "kohya" / "10_sks dog")
    assert is_kohya_folder(tmp_path / "kohya")
