"""What is legal in a run but hardly meant."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamspace.config import DatasetConfig, RunConfig
from dreamspace.config.findings import Finding, report
from dreamspace.data.lint import lint_run


def photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (8, 8)).save(folder / f"{number:04d}.png")
    return folder


def entry(folder: Path, **keys: Any) -> DatasetConfig:
    given = {"id": "subject", "instance_data_dir": folder, "instance_prompt": "a photo of a sks dog"}
    return DatasetConfig(**given | keys)


def class_images(folder: Path, **keys: Any) -> DatasetConfig:
    given = {"id": "class", "is_regularisation_data": True, "instance_prompt": "a photo of a dog"}
    return entry(folder, **given | keys)


def test_a_sound_run_has_nothing_to_say(tmp_path: Path) -> None:
    subject, reg = photos(tmp_path / "subject", 4), photos(tmp_path / "class", 8)
    assert lint_run(RunConfig(), [entry(subject, repeats=1), class_images(reg)]) == []
    assert lint_run(RunConfig(), [entry(tmp_path / "nowhere"), class_images(reg)]) == []


@pytest.mark.parametrize(
    ("num_photos", "num_class_images", "repeats", "suggested"),
    [
        (10, 1000, 0, 99),
        (10, 1000, 60, 99),
        (10, 1000, 99, None),
        (4, 8, 0, 1),
        (4, 5, 0, None),
        (4, 4, 0, None),
    ],
)
def test_class_images_that_outnumber_the_subject_get_the_repeats_that_balance(
    tmp_path: Path, num_photos: int, num_class_images: int, repeats: int, suggested: int | None
) -> None:
    datasets = [
        entry(photos(tmp_path / "subject", num_photos), repeats=repeats),
        class_images(photos(tmp_path / "class", 1), repeats=num_class_images - 1),
    ]
    found = lint_run(RunConfig(), datasets)
    assert len(found) == (suggested is not None)
    if suggested is not None:
        passes = num_photos * (repeats + 1)
        assert found[0] == Finding(
            "hint",
            "multidatabackend.json, dataset 'subject'",
            "repeats",
            f"an epoch shows class images {num_class_images} times and the subject {passes} times: "
            f"set repeats to {suggested} for a balance.",
        )
        balanced = datasets[0].model_copy(update={"repeats": suggested})
        assert lint_run(RunConfig(), [balanced, datasets[1]]) == []


def test_balance_counts_all_sizes_and_images_that_are_still_to_be_drawn(tmp_path: Path) -> None:
    subject, reg = photos(tmp_path / "subject", 5), photos(tmp_path / "class", 2)
    datasets = [
        entry(subject, id="512"),
        entry(subject, id="1024"),
        class_images(reg, id="class 512", max_num_samples=30),
        class_images(reg, id="class 1024", max_num_samples=30),
    ]
    found = lint_run(RunConfig(num_class_images=40), datasets)
    assert [finding.source[-6:] for finding in found] == [" '512'", "'1024'"]
    assert all("class images 60 times and the subject 10" in finding.message for finding in found)
    assert all("set repeats to 5 " in finding.message for finding in found)


def test_image_free_prior_is_balanced_by_itself(tmp_path: Path) -> None:
    subject = photos(tmp_path / "subject", 5)
    assert lint_run(RunConfig(), [entry(subject), class_images(subject)]) == []


def test_what_datasets_lack_is_named(tmp_path: Path) -> None:
    subject = photos(tmp_path / "subject", 3)
    (subject / "0001.txt").write_text("a dog")
    photos(tmp_path / "masks", 2)
    masks = DatasetConfig(
        id="masks",
        dataset_type="conditioning",
        conditioning_type="mask",
        instance_data_dir=tmp_path / "masks",
    )
    datasets = [
        entry(subject, caption_strategy="textfile", max_num_samples=2, conditioning_data="masks"),
        masks,
        class_images(subject, instance_prompt="a photo of a sks dog", repeats=0, max_num_samples=2),
        entry(subject, id="off", disabled=True, caption_strategy="textfile"),
    ]
    found = lint_run(RunConfig(), datasets)
    assert [(f.level, f.source.split("'")[1], f.key) for f in found] == [
        ("hint", "class", "instance_prompt"),
        ("hint", "subject", "max_num_samples"),
        ("error", "subject", "caption_strategy"),
        ("error", "subject", "conditioning_data"),
    ]
    assert "2 of 3 photos have no .txt beside them, the first is 0000.png" in found[2].message
    assert "1 of 3 photos have no mask, the first is 0002.png" in found[3].message


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"lr_warmup_steps": 9}, "lr_warmup_steps"),
        ({"scheduled_sampling_max_step_offset": 5}, "scheduled_sampling_probability"),
        ({"scheduled_sampling_probability": 0.5}, "scheduled_sampling_max_step_offset"),
        ({"lr_warmup_steps": 9, "lr_scheduler": "constant_with_warmup"}, None),
    ],
)
def test_settings_without_effect_are_named(settings: dict[str, Any], key: str | None) -> None:
    found = lint_run(RunConfig(**settings), [])
    assert [(f.level, f.source, f.key) for f in found] == ([("hint", "config.json", key)] if key else [])


def test_report_groups_by_what_matters_most() -> None:
    findings = [
        Finding("hint", "config.json", "seed", "set it."),
        Finding("error", "data.json, dataset 'a'", None, "is wrong."),
        Finding("hint", "config.json", "rank", "raise it."),
    ]
    assert report(findings).splitlines() == [
        "Cannot be done as it is written:",
        "  data.json, dataset 'a': is wrong.",
        "Worth knowing:",
        "  config.json, seed: set it.",
        "  config.json, rank: raise it.",
    ]
    assert report([]) == ""
