"""Samples: photos with captions, geometry and mask; what is wrong is named before anything is loaded."""

import os
from pathlib import Path

import pytest
from PIL import Image
from test_faces import draw_face

from dreamspace.config import DatasetConfig, parse_dataset
from dreamspace.data.samples import Sample, check_files, read_samples


def dataset(folder: Path, **keys) -> DatasetConfig:
    values = {"id": "subject", "instance_prompt": "a photo of a sks dog", "resolution": 64, "crop": True}
    return DatasetConfig(instance_data_dir=folder, **values | keys)


def masks(folder: Path, **keys) -> DatasetConfig:
    return parse_dataset({"id": "masks", "instance_data_dir": folder, "conditioning_type": "mask", **keys})


def read(dataset: DatasetConfig, *others: DatasetConfig, seed: int = 0) -> tuple[list[Sample], list[str]]:
    return read_samples(dataset, [dataset, *others], 16, seed)


@pytest.fixture
def masked(photos: Path, tmp_path: Path) -> tuple[DatasetConfig, DatasetConfig]:
    """The photos, and masks that show a part of each at its right."""
    for photo in photos.iterdir():
        with Image.open(photo) as image:
            mask = Image.new("L", image.size, 0)
        mask.paste(255, (50, 10, 75, 40))
        mask.save(tmp_path / photo.name)
    return dataset(photos, conditioning_data="masks", crop_style="subject"), masks(tmp_path)


# Reading


def test_samples_follow_the_file_names_and_carry_captions(photos: Path) -> None:
    samples, warnings = read(dataset(photos, instance_prompt=["one", "two"]))
    assert [sample.path.name for sample in samples] == ["00.png", "01.png", "02.png", "03.png"]
    assert {sample.captions for sample in samples} == {("one", "two")}
    assert len({sample.content_id for sample in samples}) == 4
    assert {(sample.regularisation, sample.mask) for sample in samples} == {(None, None)}
    assert warnings == []


def test_picture_is_the_centre_crop(photos: Path) -> None:
    sample = read(dataset(photos))[0][1]
    with Image.open(photos / "01.png") as photo:
        assert sample.picture().tobytes() == photo.crop((8, 0, 72, 64)).tobytes()


def test_class_images_know_their_target(class_photos: Path) -> None:
    for target in ("base", "noise"):
        prior = dataset(class_photos, is_regularisation_data=True, regularisation_target=target)
        assert {sample.regularisation for sample in read(prior)[0]} == {target}
    assert read(dataset(class_photos, regularisation_target="noise"))[0][0].regularisation is None


def test_first_photos_are_taken_when_they_are_limited(photos: Path) -> None:
    samples, _ = read(dataset(photos, max_num_samples=2))
    assert [sample.path.name for sample in samples] == ["00.png", "01.png"]


def test_one_folder_at_two_sizes_has_two_buckets(photos: Path) -> None:
    sizes = [read(dataset(photos, resolution=size, crop=False))[0][0].geometry.size for size in (64, 128)]
    assert sizes == [(80, 64), (144, 112)]


def test_random_crops_follow_from_seed_and_photo_alone(photos: Path, tmp_path: Path) -> None:
    random = dataset(photos, crop_style="random")
    crops = [sample.geometry.crop for sample in read(random, seed=1)[0]]
    assert crops == [sample.geometry.crop for sample in read(random, seed=1)[0]]
    assert crops != [sample.geometry.crop for sample in read(random, seed=2)[0]]
    assert len(set(crops)) > 1
    os.link(photos / "02.png", tmp_path / "renamed.png")
    assert read(dataset(tmp_path, crop_style="random"), seed=1)[0][0].geometry.crop == crops[2]


def test_changed_photo_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for size in ((100, 100), (200, 100)):
        Image.new("RGB", size).save(path)
        os.utime(path, ns=(size[0], size[0]))
        assert read(dataset(tmp_path))[0][0].geometry.resized_size == (64 * size[0] // 100, 64)


def test_progress_is_told_photo_by_photo(photos: Path) -> None:
    found: list[tuple[int, int]] = []
    subject = dataset(photos)
    read_samples(subject, [subject], 16, 0, lambda *counts: found.append(counts))
    assert found == [(1, 4), (2, 4), (3, 4), (4, 4)]


# Masks and faces


def test_mask_belongs_to_its_photo_and_leads_the_crop(masked: tuple[DatasetConfig, DatasetConfig]) -> None:
    samples, warnings = read(*masked)
    assert warnings == []
    for sample in samples:
        assert sample.mask.path == masked[1].instance_data_dir / sample.path.name
        assert sample.mask.kind == "mask"
        assert sample.geometry.crop == (16, 0, 80, 64), "as far to the right as the photo goes"
        cells = sample.mask.cells(sample.geometry, 8, 8)
        assert cells.argmax() // 8 in (1, 2)
        assert 0.9 < cells.max() <= 1


def test_kind_of_a_mask_is_that_of_the_dataset_that_holds_it(
    masked: tuple[DatasetConfig, DatasetConfig], tmp_path: Path
) -> None:
    subject, first = masked
    second = masks(tmp_path / "second", id="second", conditioning_type="segmentation")
    second.instance_data_dir.mkdir()
    (first.instance_data_dir / "03.png").rename(second.instance_data_dir / "03.png")
    subject = subject.model_copy(update={"conditioning_data": ["masks", "second"]})
    assert [sample.mask.kind for sample in read(subject, first, second)[0]] == ["mask"] * 3 + ["segmentation"]


def test_photo_with_a_black_mask_keeps_its_centre(masked: tuple[DatasetConfig, DatasetConfig]) -> None:
    Image.new("L", (80, 64)).save(masked[1].instance_data_dir / "02.png")
    samples, warnings = read(*masked)
    assert len(samples) == 4
    assert [warning for warning in warnings if warning.startswith("02.png")] == [], "the training warns"
    assert samples[2].geometry.crop == (8, 0, 72, 64), "the centre"


def test_missing_mask_is_refused_by_its_photo(masked: tuple[DatasetConfig, DatasetConfig]) -> None:
    (masked[1].instance_data_dir / "01.png").unlink()
    for refuse in (lambda: check_files(list(masked)), lambda: read(*masked)):
        with pytest.raises(ValueError, match=r"The photo 01\.png has no mask in .*Add 01\.png, all white"):
            refuse()


def test_mask_of_another_shape_is_refused(masked: tuple[DatasetConfig, DatasetConfig]) -> None:
    Image.new("L", (64, 80), 255).save(masked[1].instance_data_dir / "01.png")
    with pytest.raises(ValueError, match=r"01\.png has 64 x 80 px and its photo 80 x 64 px.*another shape"):
        read(*masked)


def test_crop_follows_the_face(tmp_path: Path) -> None:
    photo = draw_face(Image.new("RGB", (600, 300), (120, 160, 200)), 450, 150, 80)
    photo.save(tmp_path / "face.png")
    Image.new("RGB", (600, 300), (120, 160, 200)).save(tmp_path / "none.png")
    samples, warnings = read(dataset(tmp_path, crop_style="face"))
    left = [sample.geometry.crop[0] for sample in samples]
    assert left[1] == 32
    assert left[0] > 55
    assert warnings == ["none.png: no face was found in it, so its centre is kept."]


# Left out, refused


def test_refused_photo_is_named_and_the_others_are_kept(photos: Path, tmp_path: Path) -> None:
    for path in photos.iterdir():
        os.link(path, tmp_path / path.name)
    (tmp_path / "01b.png").write_text("no picture")
    Image.new("RGB", (50, 500)).save(tmp_path / "01c.png")
    samples, warnings = read(dataset(tmp_path, minimum_image_size=60))
    assert len(samples) == 4
    assert warnings[0].startswith("Left out 01b.png: this is not a JPEG")
    assert warnings[1].startswith("Left out 01c.png: it has 50 x 500 px, and minimum_image_size")


def test_enlarged_photo_is_a_warning(photos: Path) -> None:
    _, warnings = read(dataset(photos, resolution=128))
    assert warnings[0].startswith("00.png: it is enlarged 2 times and will look soft.")


def test_many_remarks_are_cut_short(tmp_path: Path) -> None:
    for number in range(30):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number:02d}.png")
    _, warnings = read(dataset(tmp_path))
    assert len(warnings) == 21
    assert warnings[-1] == "10 more remarks of this kind on photos of 'subject'."


def test_folder_whose_photos_are_all_refused_is_refused_with_a_reason(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_text("no picture")
    with pytest.raises(ValueError, match=r"None of the 2 photos in .* can be used\. Left out a\.png: "):
        read(dataset(tmp_path))


def test_resolution_that_does_not_fit_names_the_nearest(photos: Path) -> None:
    for crop in (True, False):
        with pytest.raises(ValueError, match=r"multiple of 16 px for this model, got 100\. Try 96\."):
            read(dataset(photos, resolution=100, crop=crop))


# Before a job starts


def test_files_that_are_all_there_pass(masked: tuple[DatasetConfig, DatasetConfig], photos: Path) -> None:
    cache = parse_dataset({"id": "text", "dataset_type": "text_embeds", "cache_dir": "anywhere"})
    hub = parse_dataset({"id": "hub", "type": "huggingface", "dataset_name": "a/b", "instance_prompt": "a"})
    off = dataset(photos / "nowhere", id="off", disabled=True)
    check_files([*masked, cache, hub, off])


def test_empty_class_folder_is_refused_unless_its_images_are_drawn_later(
    photos: Path, tmp_path: Path
) -> None:
    prior = dataset(tmp_path, id="prior", is_regularisation_data=True)
    with pytest.raises(ValueError, match="holds no photo"):
        check_files([dataset(photos), prior])
    with pytest.raises(ValueError, match="holds no photo"):
        read(prior)
    check_files([dataset(photos), prior], drawn_later={"prior"})


def test_missing_captions_are_named_before_a_photo_is_opened(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_text("not even a picture")
    with pytest.raises(
        ValueError, match=r"3 of 3 photos in .* have no caption file: 0\.png, 1\.png, 2\.png\."
    ):
        check_files([dataset(tmp_path, caption_strategy="textfile")])
    (tmp_path / "0.txt").write_text("a dog")
    check_files([dataset(tmp_path, caption_strategy="textfile", max_num_samples=1)])


def test_unknown_masks_are_refused_with_the_nearest_name(photos: Path, tmp_path: Path) -> None:
    subject = dataset(photos, conditioning_data="mask")
    with pytest.raises(
        ValueError, match=r"takes its masks from 'mask', which does not exist\. Did you mean 'masks'"
    ):
        check_files([subject, masks(tmp_path)])
