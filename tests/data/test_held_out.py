"""Held-out photos: which they are, and that nothing learns from them."""

from pathlib import Path

from PIL import Image

from dreamspace.config import DatasetConfig, RunConfig
from dreamspace.data.evaluation_photos import split_photos
from dreamspace.data.held_out import announcement, content_id, held_out_files, held_out_ids
from dreamspace.data.samples import Sample, read_samples
from tests.tiny_runs import cropped_dataset, draw_photos

CONFIG = RunConfig()


def read(datasets: list[DatasetConfig]) -> dict[str, list[Sample]]:
    trained = [dataset for dataset in datasets if dataset.is_trained]
    return {dataset.id: read_samples(dataset, datasets, 8, 0)[0] for dataset in trained}


def names(samples: list[Sample]) -> set[str]:
    return {sample.path.name for sample in samples}


def test_one_in_five_of_six_or_more_is_held_out():
    ids = [f"{number:016x}" for number in range(20)]
    assert held_out_ids(ids[:5]) == set()
    assert [len(held_out_ids(ids[:count])) for count in (6, 9, 10, 14, 15, 20)] == [1, 1, 2, 2, 3, 4]


def test_the_choice_follows_from_content_alone(tmp_path: Path):
    first = cropped_dataset(draw_photos(tmp_path / "a", 7))
    renamed = draw_photos(tmp_path / "b", 7)
    for photo in list(renamed.iterdir()):
        photo.rename(renamed / f"{9 - int(photo.stem)}-renamed.png")
    found = [held_out_files(CONFIG, [dataset]) for dataset in (first, cropped_dataset(renamed))]
    assert len(found[0]) == len(found[1]) == 1
    assert found[0][0].read_bytes() == found[1][0].read_bytes()


def test_a_photo_that_is_held_out_is_in_no_dataset_that_is_trained(tmp_path: Path):
    photos = draw_photos(tmp_path / "photos", 6)
    small = cropped_dataset(photos, id="small", resolution=32)
    prior = cropped_dataset(photos, id="prior", is_regularisation_data=True, instance_prompt="a dog")
    datasets = [cropped_dataset(photos), small, prior]
    left, judged_by, warnings = split_photos(CONFIG, datasets, read(datasets), 8)
    held_out = {path.name for path in held_out_files(CONFIG, datasets)}
    assert len(held_out) == 1
    assert not warnings
    assert judged_by.evidence == "held_out"
    assert set(judged_by.held_out_names) == held_out
    assert set(judged_by.samples) == {"subject", "small"}
    for samples in left.values():
        assert len(samples) == 5
        assert not names(samples) & held_out
    assert [sample.geometry.size for sample in judged_by.different] == [(64, 64)]


def test_with_few_photos_or_switched_off_the_evidence_is_weak(tmp_path: Path):
    five, six = draw_photos(tmp_path / "five", 5), draw_photos(tmp_path / "six", 6)
    off = RunConfig(held_out_photos=False)
    for folder, config in ((five, CONFIG), (six, off)):
        datasets = [cropped_dataset(folder)]
        left, judged_by, _ = split_photos(config, datasets, read(datasets), 8)
        assert judged_by.evidence == "weak"
        assert judged_by.held_out_names == []
        assert names(judged_by.different) == names(left["subject"]) == {p.name for p in folder.iterdir()}
        assert held_out_files(config, datasets) == []


def test_photos_of_an_eval_dataset_are_the_ones_and_shared_ones_are_named_and_removed(tmp_path: Path):
    photos = draw_photos(tmp_path / "photos", 6)
    apart = draw_photos(tmp_path / "apart", 2, first=20)
    (apart / "copy.png").write_bytes((photos / "03.png").read_bytes())
    datasets = [cropped_dataset(photos), cropped_dataset(apart, id="eval", dataset_type="eval")]
    left, judged_by, warnings = split_photos(CONFIG, datasets, read(datasets), 8)
    assert len(left["subject"]) == 6
    assert judged_by.evidence == "held_out"
    assert set(judged_by.held_out_names) == {"20.png", "21.png"}
    assert len(warnings) == 1
    assert "copy.png" in warnings[0]


def test_an_eval_dataset_of_nothing_but_training_photos_is_weak_evidence(tmp_path: Path):
    photos = draw_photos(tmp_path / "photos", 4)
    datasets = [cropped_dataset(photos), cropped_dataset(photos, id="eval", dataset_type="eval")]
    _, judged_by, warnings = split_photos(CONFIG, datasets, read(datasets), 8)
    assert judged_by.evidence == "weak"
    assert "weak evidence" in warnings[-1]


def test_a_dataset_that_would_be_left_empty_keeps_its_photos(tmp_path: Path):
    single, more = draw_photos(tmp_path / "single", 1), draw_photos(tmp_path / "more", 5, first=1)
    datasets = [cropped_dataset(single, id="single"), cropped_dataset(more, id="more")]
    left, judged_by, _ = split_photos(CONFIG, datasets, read(datasets), 8)
    is_single = judged_by.held_out_names == ["00.png"]
    assert not is_single
    assert all(left.values())


def test_what_a_run_is_judged_by_is_said_before_it_starts(tmp_path: Path):
    six, five = draw_photos(tmp_path / "six", 6), draw_photos(tmp_path / "five", 5)
    datasets = [cropped_dataset(six)]
    (held_out,) = held_out_files(CONFIG, datasets)
    assert held_out.name in announcement(CONFIG, datasets)
    assert "weak evidence" in announcement(CONFIG, [cropped_dataset(five)])
    own = [*datasets, cropped_dataset(five, id="eval", dataset_type="eval")]
    assert "eval datasets" in announcement(CONFIG, own)


def test_what_was_recorded_stays_held_out_and_nothing_takes_its_place(tmp_path: Path):
    photos = draw_photos(tmp_path / "photos", 10)
    datasets = [cropped_dataset(photos)]
    recorded = {sample.content_id for sample in read(datasets)["subject"][:1]}
    left, judged_by, _ = split_photos(CONFIG, datasets, read(datasets), 8, recorded)
    assert judged_by.held_out_names == ["00.png"]
    assert len(left["subject"]) == 9
    (photos / "00.png").unlink()
    left, judged_by, _ = split_photos(CONFIG, datasets, read(datasets), 8, recorded)
    assert judged_by.evidence == "weak"
    assert len(left["subject"]) == 9


def test_a_photo_that_is_too_small_is_not_announced_and_counts_for_nothing(tmp_path: Path):
    rules = {"minimum_image_size": 60}
    for number in range(6):
        folder = draw_photos(tmp_path / f"{number}", 7)
        small = folder / f"{number:02d}.png"
        with Image.open(small) as image:
            image.resize((40, 40)).save(small)
        datasets = [cropped_dataset(folder, **rules)]
        _, judged_by, _ = split_photos(CONFIG, datasets, read(datasets), 8)
        assert [path.name for path in held_out_files(CONFIG, datasets)] == judged_by.held_out_names
        assert len(judged_by.held_out_names) == 1
    (folder / "06.png").unlink()  # five are left that can be used
    assert len(list(folder.iterdir())) == 6
    assert "weak evidence" in announcement(CONFIG, datasets)


def test_what_a_dataset_cannot_spare_is_not_announced(tmp_path: Path):
    all_photos = draw_photos(tmp_path / "all", 6)
    (held_out,) = held_out_files(CONFIG, [cropped_dataset(all_photos)])
    (tmp_path / "single").mkdir()
    held_out.rename(tmp_path / "single" / held_out.name)
    datasets = [cropped_dataset(tmp_path / "single", id="single"), cropped_dataset(all_photos, id="more")]
    _, judged_by, _ = split_photos(CONFIG, datasets, read(datasets), 8)
    assert judged_by.evidence == "weak"
    assert held_out_files(CONFIG, datasets) == []


def test_a_run_that_goes_on_announces_what_it_held_out_before(tmp_path: Path):
    datasets = [cropped_dataset(draw_photos(tmp_path / "photos", 7))]
    recorded = {content_id(tmp_path / "photos" / "03.png")}
    assert ": 03.png." in announcement(CONFIG, datasets, recorded)
    (tmp_path / "photos" / "03.png").unlink()
    for none_left in (recorded, set()):
        assert "None of the photos that are here now" in announcement(CONFIG, datasets, none_left)
