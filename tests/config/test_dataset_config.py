"""multidatabackend.json: what is accepted, and the one sentence for what is not."""

import json
from pathlib import Path
from typing import Any

import pytest

from dreamspace.config import (
    DatasetConfig,
    class_prompt,
    instance_prompt,
    load_datasets,
    mask_datasets,
    parse_dataset,
    read_datasets,
    save_datasets,
    subject_dataset,
    subject_datasets,
    subject_prompt,
)
from dreamspace.config.run import RunConfig

ENTRY = {"id": "subject", "instance_data_dir": "photos", "instance_prompt": "a photo of a sks dog"}


def write(tmp_path: Path, *entries: dict[str, Any]) -> Path:
    path = tmp_path / "multidatabackend.json"
    path.write_text(json.dumps(entries))
    return path


def entry(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return {**ENTRY, "instance_data_dir": str(tmp_path), **changes}


def test_defaults_mean_what_simpletuner_means() -> None:
    dataset = parse_dataset(ENTRY)
    assert (dataset.repeats, dataset.probability, dataset.resolution) == (0, 1.0, 1024)
    assert dataset.resolution_type == "pixel_area"
    assert dataset.instance_prompts == ["a photo of a sks dog"]


def test_other_spellings_and_dashes_are_read() -> None:
    dataset = parse_dataset(
        {**ENTRY, "--repeats": 3, "is_regularization_data": True, "disable": True, "crop_style": "centre"}
    )
    assert (dataset.repeats, dataset.is_regularisation_data, dataset.disabled) == (3, True, True)
    assert dataset.crop_style == "center"


def test_several_captions_are_kept_in_order() -> None:
    assert parse_dataset({**ENTRY, "instance_prompt": ["b", "a"]}).instance_prompts == ["b", "a"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"repeats": -1}, "repeats must be at least 0, got -1."),
        ({"probability": -0.5}, "probability must be at least 0, got -0.5."),
        ({"resolution": 0}, "resolution must be above 0, got 0."),
        ({"resolution": "big"}, 'resolution must be a number, got "big".'),
        (
            {"resolution_type": "px"},
            "resolution_type must be 'pixel', 'area' or 'pixel_area', got \"px\".",
        ),
        ({"type": "aws"}, 'type "aws" is not supported yet. Use "local" for now.'),
        ({"type": "huggingface"}, "the key 'dataset_name' is missing. Add the Hub id or the folder."),
        ({"huggingface": {"columns": "a"}}, "there is no key 'huggingface.columns'. Remove it."),
        (
            {"instance_data_dir": None},
            "the key 'instance_data_dir' is missing. Add the folder of the photos.",
        ),
        (
            {"caption_strategy": "instance_prompt"},
            "caption_strategy must be 'instanceprompt', 'textfile', 'filename' or 'huggingface', "
            'got "instance_prompt".',
        ),
        (
            {"caption_strategy": "huggingface"},
            "caption_strategy 'huggingface' belongs to a dataset of type 'huggingface'. Use 'textfile'.",
        ),
        (
            {"caption_strategy": "huggingface", "type": "huggingface", "dataset_name": "owner/name"},
            'caption_strategy "huggingface" needs the column: add "huggingface": {"caption_column": "..."}.',
        ),
        (
            {"instance_prompt": None},
            "the key 'instance_prompt' is missing. Add it, such as 'a photo of a sks dog'.",
        ),
        (
            {"instance_prompt": None, "caption_strategy": "textfile", "prepend_instance_prompt": True},
            "the key 'instance_prompt' is missing. Add it, such as 'a photo of a sks dog'.",
        ),
        (
            {"instance_prompt": "x" * 10_000},
            "instance_prompt must have at most 2,000 characters, got 10,000. Shorten it.",
        ),
        (
            {"dataset_type": "conditioning"},
            "a dataset_type of 'conditioning' needs conditioning_type 'mask' or 'segmentation'.",
        ),
        (
            {"conditioning_type": "depth"},
            "conditioning_type must be 'mask' or 'segmentation', got \"depth\".",
        ),
        (
            {"conditioning_type": "mask", "dataset_type": "image"},
            "conditioning_type belongs to masks, and dataset_type is 'image'. Remove one of the two.",
        ),
        (
            {"conditioning_data": "masks", "dataset_type": "eval"},
            "conditioning_data belongs to photos, of dataset_type 'image'. Remove it.",
        ),
        (
            {"conditioning_data": [""]},
            'conditioning_data must be the id of a dataset or a list of ids, got [""].',
        ),
        (
            {"crop_style": "subject"},
            "crop_style 'subject' follows the masks, and there are none. Add conditioning_data, or use "
            "'center'.",
        ),
        (
            {"crop_aspect_buckets": [1.0, 5]},
            "crop_aspect_buckets must be a list of shapes (width / height) from 0.25 to 4, got [1.0, 5.0].",
        ),
        (
            {"resolution_type": "area"},
            "resolution counts megapixels with a resolution_type of 'area', got 1024. "
            "Use 'pixel_area' for an edge in px.",
        ),
        ({"resolution": 100_000}, "resolution must be at most 8192 px, got 100000. Lower it."),
        (
            {"maximum_image_size": 9000, "target_downsample_size": 1024},
            "maximum_image_size must be at most 8192 px, got 9000. Lower it.",
        ),
        (
            {"resolution": 1, "resolution_type": "area", "minimum_image_size": 70},
            "minimum_image_size counts megapixels with a resolution_type of 'area', got 70. "
            "Use 'pixel_area' for an edge in px.",
        ),
        (
            {"minimum_image_size": 1024, "maximum_image_size": 512, "target_downsample_size": 512},
            "minimum_image_size (1024) is above maximum_image_size (512). Swap them.",
        ),
        (
            {"maximum_image_size": 1024},
            "maximum_image_size needs a target_downsample_size to scale to. Add it.",
        ),
        (
            {"minimum_aspect_ratio": 2, "maximum_aspect_ratio": 0.5},
            "minimum_aspect_ratio (2) is above maximum_aspect_ratio (0.5). Swap them.",
        ),
        ({"start_step": 10, "end_step": 10}, "end_step (10) must be above start_step (10). Raise it."),
        ({"instance_data_dir": " "}, "instance_data_dir must name a folder, got an empty text."),
        ({"instance_data_dir": 5}, "instance_data_dir must be a path, got 5."),
        (
            {"instance_prompt": []},
            "instance_prompt must be a text or a list of texts, none of them empty, got [].",
        ),
        (
            {"instance_prompt": ["a", ""]},
            'instance_prompt must be a text or a list of texts, none of them empty, got ["a", ""].',
        ),
        ({"repeat": 1}, "there is no key 'repeat'. Did you mean 'repeats'?"),
    ],
)
def test_wrong_entry_is_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the sentence is compared whole
        parse_dataset({**ENTRY, **changes}, source="multidatabackend.json")
    assert str(caught.value) == f"multidatabackend.json, dataset 'subject': {sentence}"


@pytest.mark.parametrize(
    "changes",
    [
        {"crop": False, "resolution": 512, "minimum_image_size": 0},
        {"caption_strategy": "textfile", "instance_prompt": None},
        {"caption_strategy": "filename", "only_instance_prompt": True},
        {"dataset_type": "eval", "caption_strategy": "filename", "instance_prompt": None},
        {"conditioning_data": ["masks", "more"], "crop": True, "crop_style": "subject"},
        {"crop_aspect": "random", "crop_aspect_buckets": [0.5, 1, 2.0]},
        {"resolution_type": "area", "resolution": 0.25, "minimum_image_size": 0.1},
        {"type": "huggingface", "dataset_name": "owner/name", "instance_data_dir": None},
        {"start_step": 100, "end_step": 200, "probability": 0.5, "repeats": 3, "max_num_samples": 5},
        {"is_regularisation_data": True, "regularisation_target": "noise"},
    ],
)
def test_what_the_guide_and_simpletuner_write_is_read_and_kept(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    dataset = parse_dataset({**ENTRY, **changes})
    for key, value in changes.items():
        assert getattr(dataset, key) == value
    save_datasets([dataset], tmp_path / "multidatabackend.json")
    assert read_datasets(tmp_path / "multidatabackend.json") == [dataset]


def test_conditioning_type_makes_a_dataset_one_of_masks() -> None:
    masks = parse_dataset({"id": "masks", "instance_data_dir": "masks", "conditioning_type": "mask"})
    assert masks.dataset_type == "conditioning"
    assert not masks.is_trained


def test_caches_need_no_folder_of_photos_and_no_caption() -> None:
    for kind in ("text_embeds", "image_embeds"):
        cache = parse_dataset({"id": "cache", "dataset_type": kind, "default": True, "cache_dir": "cache"})
        assert (cache.cache_dir, cache.default, cache.is_trained) == (Path("cache"), True, False)


def test_missing_key_is_named() -> None:
    with pytest.raises(ValueError, match=r"^dataset: the key 'id' is missing\. Add it\.$"):
        parse_dataset({key: value for key, value in ENTRY.items() if key != "id"})


def test_load_leaves_out_disabled_datasets_and_their_folders(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        entry(tmp_path, id="off", disabled=True, instance_data_dir="missing"),
        entry(tmp_path, id="b"),
        entry(tmp_path, id="a"),
    )
    assert [dataset.id for dataset in load_datasets(path)] == ["b", "a"]


def test_what_is_written_can_be_read_when_folders_are_gone(tmp_path: Path) -> None:
    path = write(tmp_path, entry(tmp_path, id="off", disabled=True), {**ENTRY, "instance_data_dir": "gone"})
    assert [dataset.id for dataset in read_datasets(path)] == ["off", "subject"]
    with pytest.raises(ValueError, match="has no folder gone"):
        load_datasets(path)


def test_masks_are_found_by_their_ids_in_order() -> None:
    masks = [
        parse_dataset({"id": name, "instance_data_dir": name, "conditioning_type": "mask"}) for name in "ab"
    ]
    subject = parse_dataset({**ENTRY, "conditioning_data": ["b", "a"]})
    assert mask_datasets(subject, [subject, *masks]) == masks[::-1]
    assert mask_datasets(parse_dataset(ENTRY), masks) == []


def test_subject_dataset_is_the_first_that_is_learned_from() -> None:
    changes = [{"disabled": True}, {"is_regularisation_data": True}, {"probability": 0}, {}, {}]
    datasets = [parse_dataset({**ENTRY, "id": str(index), **c}) for index, c in enumerate(changes)]
    assert subject_dataset(datasets).id == "3"
    with pytest.raises(ValueError, match="no dataset shows the subject"):
        subject_dataset(datasets[:3])


@pytest.mark.parametrize(
    ("captions", "words", "prompt"),
    [
        ("a photo of a sks dog", {"token": "sks", "class_word": "dog"}, "a photo of a sks dog"),
        (["sks", "a photo of a sks dog"], {"token": "sks", "class_word": "dog"}, "a photo of a sks dog"),
        (["by hand", "second"], {"token": "sks", "class_word": "dog"}, "by hand"),
        (["by hand", "second"], {}, "by hand"),
    ],
)
def test_subject_prompt_is_a_caption_that_is_trained(
    captions: str | list[str], words: dict[str, str], prompt: str
) -> None:
    prior = parse_dataset({**ENTRY, "id": "prior", "is_regularisation_data": True})
    subject = parse_dataset({**ENTRY, "instance_prompt": captions})
    assert subject_prompt(RunConfig(**words), [prior, subject]) == prompt


def test_saved_datasets_load_as_the_same(tmp_path: Path) -> None:
    datasets = subject_datasets(tmp_path, "a photo of a sks dog", 128, tmp_path, "a photo of a dog")
    save_datasets(datasets, tmp_path / "multidatabackend.json")
    assert load_datasets(tmp_path / "multidatabackend.json") == datasets
    written = json.loads((tmp_path / "multidatabackend.json").read_text())
    assert written[0]["resolution"] == 128
    assert isinstance(written[0]["resolution"], int)
    assert set(written[0]) == set(DatasetConfig.model_fields)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([{"id": "x"}, {"id": "x"}], "two datasets have the id 'x'"),
        ([], "no dataset shows the subject"),
        ([{"disabled": True}], "no dataset shows the subject"),
        ([{"is_regularisation_data": True}], "no dataset shows the subject"),
        ([{"probability": 0}], "no dataset shows the subject"),
        ([{"instance_data_dir": "/nowhere/at/all"}], "dataset 'subject' has no folder /nowhere/at/all"),
        (
            [{"conditioning_data": "mask"}, {"id": "masks", "conditioning_type": "mask"}],
            r"'subject' takes its masks from 'mask', which does not exist\. Did you mean 'masks'\?",
        ),
        (
            [{"conditioning_data": "m"}, {"id": "m", "conditioning_type": "mask", "disabled": True}],
            r"takes its masks from 'm', which does not exist\. Add it, or remove conditioning_data\.",
        ),
        (
            [{"conditioning_data": "other"}, {"id": "other"}],
            "takes its masks from 'other', which holds none. Give that one dataset_type 'conditioning'",
        ),
        (
            [{"conditioning_data": "masks"}, {"id": "masks", "conditioning_type": "mask"}],
            "dataset 'subject' and its masks 'masks' name one folder",
        ),
    ],
)
def test_wrong_list_is_refused(tmp_path: Path, changes: list[dict[str, Any]], words: str) -> None:
    path = write(tmp_path, *(entry(tmp_path, **change) for change in changes))
    with pytest.raises(ValueError, match=words) as caught:
        load_datasets(path)
    assert str(caught.value).startswith("multidatabackend.json: ")


def test_file_that_holds_no_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "multidatabackend.json"
    path.write_text(json.dumps(ENTRY))
    with pytest.raises(ValueError, match=r"must hold a list of datasets, got \{.*\. Put \[ \] around it"):
        load_datasets(path)
    path.write_text('["subject"]')
    with pytest.raises(ValueError, match=r'a JSON object with settings is expected, got "subject"'):
        load_datasets(path)
    path.write_text('[\n  {"id": "subject",\n   "repeats":')
    with pytest.raises(ValueError, match=rf"{path} is not valid JSON at line 3, column 14: .*Mend it there"):
        load_datasets(path)


def test_subject_datasets_are_the_subject_and_its_prior(tmp_path: Path) -> None:
    (subject,) = subject_datasets(tmp_path, "a photo of a sks dog", 128)
    assert (subject.id, subject.resolution, subject.resolution_type) == ("subject", 128, "pixel")
    assert not subject.is_regularisation_data
    _, prior = subject_datasets(tmp_path, "a photo of a sks dog", 128, tmp_path / "prior", "a photo of a dog")
    assert prior.is_regularisation_data
    assert prior.instance_prompts == ["a photo of a dog"]
    assert prior.instance_data_dir == tmp_path / "prior"


@pytest.mark.parametrize(
    ("token", "class_word", "prompt"),
    [
        ("sks", "dog", "a photo of a sks dog"),
        ("", "dog", "a photo of a dog"),
        (None, " dog ", "a photo of a dog"),
        ("sks", None, "a photo of a sks"),
    ],
)
def test_instance_prompt_names_token_and_class(
    token: str | None, class_word: str | None, prompt: str
) -> None:
    assert instance_prompt(token, class_word) == prompt


def test_prompts_need_a_word() -> None:
    assert class_prompt("dog") == "a photo of a dog"
    with pytest.raises(ValueError, match="Neither token nor class_word"):
        instance_prompt("", None)
    with pytest.raises(ValueError, match="class_word is empty"):
        class_prompt(" ")
