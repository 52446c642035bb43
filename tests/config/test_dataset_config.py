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
        ({"type": "huggingface"}, 'type "huggingface" is not supported yet. Use "local" for now.'),
        (
            {"dataset_type": "conditioning"},
            'dataset_type "conditioning" is not supported yet. Use "image" for now.',
        ),
        (
            {"caption_strategy": "textfile"},
            'caption_strategy "textfile" is not supported yet. Use "instanceprompt" for now.',
        ),
        (
            {"caption_strategy": "instance_prompt"},
            "caption_strategy must be 'instanceprompt', got \"instance_prompt\".",
        ),
        ({"crop_aspect": "random"}, 'crop_aspect "random" is not supported yet. Use "square" for now.'),
        ({"crop": False}, "crop false (aspect buckets) is not supported yet. Use true for now."),
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
        (
            {"conditioning_data": "masks"},
            "SimpleTuner's 'conditioning_data' is not supported yet. "
            "Remove it to go on without what it does.",
        ),
        ({"repeat": 1}, "there is no key 'repeat'. Did you mean 'repeats'?"),
    ],
)
def test_wrong_entry_is_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the sentence is compared whole
        parse_dataset({**ENTRY, **changes}, source="multidatabackend.json")
    assert str(caught.value) == f"multidatabackend.json, dataset 'subject': {sentence}"


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
    path.write_text('[{"id": ')
    with pytest.raises(ValueError, match="line 1, column"):
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
