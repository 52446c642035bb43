"""Datasets of the Hub's kind, offline: folders of pictures and tables become local folders, once."""

import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from dreamspace.config import DatasetConfig
from dreamspace.data.hub_dataset import local_copy
from dreamspace.data.samples import check_files, read_samples

datasets = pytest.importorskip("datasets")

CAPTIONS = ["a sks dog", "a sks dog\non grass", ""]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def on_hub(name: Path | str, **keys) -> DatasetConfig:
    caption = {"huggingface": {"caption_column": "text"}, "caption_strategy": "huggingface"}
    values = {"id": "subject", "type": "huggingface", "dataset_name": str(name), "resolution": 64}
    return DatasetConfig.model_validate(values | caption | keys)


def pictures(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        Image.new("RGB", (80, 64), (40 * number, 90, 20)).save(folder / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": CAPTIONS[number % 3]}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A folder with a parquet file of pictures, as the Hub keeps them."""
    folder = pictures(tmp_path / "source")
    rows = {"photo": [(folder / f"{number}.png").read_bytes() for number in range(3)], "text": CAPTIONS}
    (tmp_path / "table").mkdir()
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "table" / "train.parquet")
    return tmp_path / "table"


def test_folder_of_pictures_becomes_a_local_dataset(tmp_path: Path) -> None:
    found: list[int] = []
    hub = on_hub(pictures(tmp_path / "source"), max_num_samples=2)
    local, warnings = local_copy(hub, tmp_path / "cache", found.append)
    assert (local.type, local.caption_strategy, warnings) == ("local", "textfile", [])
    assert found == [1, 2]
    assert local.instance_data_dir.parent == tmp_path / "cache"
    check_files([local])
    samples, _ = read_samples(local, [local], 8, 0)
    assert [sample.path.name for sample in samples] == ["000000.png", "000001.png"]
    assert [sample.captions for sample in samples] == [("a sks dog",), ("a sks dog on grass",)]
    with Image.open(tmp_path / "source" / "1.png") as original, Image.open(samples[1].path) as copy:
        assert copy.tobytes() == original.tobytes()


def test_table_of_pictures_becomes_a_local_dataset(table: Path, tmp_path: Path) -> None:
    columns = {"image_column": "photo", "caption_column": "text"}
    local, _ = local_copy(on_hub(table, huggingface=columns), tmp_path / "cache")
    assert sorted(path.name for path in local.instance_data_dir.glob("*.png")) == [
        "000000.png",
        "000001.png",
        "000002.png",
    ]
    with pytest.raises(ValueError, match=r"1 of 3 photos in .* has no caption file: 000002\.png"):
        check_files([local])


def test_captions_may_come_from_the_instance_prompt(tmp_path: Path) -> None:
    hub = on_hub(
        pictures(tmp_path / "source"),
        huggingface={},
        caption_strategy="instanceprompt",
        instance_prompt="a dog",
    )
    local, _ = local_copy(hub, tmp_path / "cache")
    assert {sample.captions for sample in read_samples(local, [local], 8, 0)[0]} == {("a dog",)}
    assert not list(local.instance_data_dir.glob("*.txt"))


def test_copy_is_made_once_and_anew_when_the_dataset_changes(tmp_path: Path) -> None:
    source, cache = pictures(tmp_path / "source"), tmp_path / "cache"
    first, _ = local_copy(on_hub(source), cache)
    (first.instance_data_dir / "mark").touch()
    again, _ = local_copy(on_hub(source), cache)
    assert again == first
    assert (again.instance_data_dir / "mark").exists()
    pictures(source, count=4)
    changed, _ = local_copy(on_hub(source), cache)
    assert changed.instance_data_dir != first.instance_data_dir
    assert len(list(changed.instance_data_dir.glob("*.png"))) == 4


def test_copy_that_was_cut_off_leaves_no_folder(tmp_path: Path) -> None:
    def stop(count: int) -> None:
        if count == 2:
            raise KeyboardInterrupt

    hub = on_hub(pictures(tmp_path / "source"))
    with pytest.raises(KeyboardInterrupt):
        local_copy(hub, tmp_path / "cache", stop)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["builders"]
    local, _ = local_copy(hub, tmp_path / "cache")
    assert len(list(local.instance_data_dir.glob("*.png"))) == 3


def test_damaged_picture_is_left_out_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    source = pictures(tmp_path / "source")
    (source / "1.png").write_bytes((source / "1.png").read_bytes()[:60])
    for _ in range(2):
        local, warnings = local_copy(on_hub(source), tmp_path / "cache")
        assert len(warnings) == 1
        assert warnings[0].startswith("Left out row 1 of 'subject': ")
    assert [path.name for path in sorted(local.instance_data_dir.glob("*.png"))] == [
        "000000.png",
        "000002.png",
    ]


def test_local_dataset_stays_as_it_is(photos: Path, tmp_path: Path) -> None:
    local = DatasetConfig(id="a", instance_data_dir=photos, instance_prompt="a")
    assert local_copy(local, tmp_path) == (local, [])


# What is refused


def test_unknown_columns_and_splits_name_the_nearest(tmp_path: Path) -> None:
    source = pictures(tmp_path / "source")
    for keys, words in (
        ({"split": "trian"}, r"no split 'trian'\. Did you mean 'train'\? Its splits: train\."),
        ({"huggingface": {"caption_column": "texts"}}, r"no column 'texts'\. Did you mean 'text'\?"),
        (
            {"huggingface": {"image_column": "img", "caption_column": "text"}},
            "no column 'img'.*: image, text",
        ),
        ({"huggingface": {"image_column": "text", "caption_column": "text"}}, "'text' .*holds no pictures"),
    ):
        with pytest.raises(ValueError, match=words):
            local_copy(on_hub(source, **keys), tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/nowhere/at/all", "is neither a folder nor on the Hub"),
        ("./nowhere", "is neither a folder nor on the Hub"),
        ("nobody/none", "the Hub does not answer. Check the network, or name a folder"),
    ],
)
def test_dataset_that_cannot_be_had_is_one_sentence(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        local_copy(on_hub(name), tmp_path / "cache")
    assert str(caught.value).startswith(f"Dataset 'subject' ({name})")


def test_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is a folder without pictures or tables"):
        local_copy(on_hub(tmp_path / "empty"), tmp_path / "cache")
    (tmp_path / "empty" / "a.csv").write_text("image,text\n/etc/hostname,a\n")
    with pytest.raises(ValueError, match="holds csv files, and pictures are read from arrow, imagefolder"):
        local_copy(on_hub(tmp_path / "empty"), tmp_path / "cache")


def test_missing_package_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setitem(sys.modules, "datasets.exceptions", None)
    with pytest.raises(
        ValueError, match=r"needs the package datasets\. Install it with: pip install datasets"
    ):
        local_copy(on_hub(tmp_path), tmp_path / "cache")


def test_nothing_is_written_into_the_dataset(tmp_path: Path) -> None:
    source = pictures(tmp_path / "source")
    before = sorted(os.listdir(source))
    local_copy(on_hub(source), tmp_path / "cache")
    assert sorted(os.listdir(source)) == before
