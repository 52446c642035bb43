"""Captions: every source, what is refused before anything is loaded, and editing one of many."""

from pathlib import Path

import pytest

from dreamspace.config import DatasetConfig, parse_dataset
from dreamspace.data.captions import (
    caption_file,
    captions_of,
    check_captions,
    fill_captions,
    read_captions,
    write_caption,
)


def dataset(folder: Path, strategy: str = "textfile", **keys) -> DatasetConfig:
    return DatasetConfig(id="subject", instance_data_dir=folder, caption_strategy=strategy, **keys)


def photo(folder: Path, name: str = "01.jpg", caption: str | bytes | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.touch()
    if caption is not None:
        content = caption.encode() if isinstance(caption, str) else caption
        path.with_suffix(".txt").write_bytes(content)
    return path


def test_instance_prompt_is_the_caption_of_every_photo(tmp_path: Path) -> None:
    path = photo(tmp_path, caption="of its own")
    assert captions_of(dataset(tmp_path, "instanceprompt", instance_prompt="one"), path) == ("one",)
    both = dataset(tmp_path, "instanceprompt", instance_prompt=["one", "two"], prepend_instance_prompt=True)
    assert captions_of(both, path) == ("one", "two")


def test_each_line_that_is_not_empty_is_a_caption(tmp_path: Path) -> None:
    path = photo(tmp_path, caption="a dog\r\n\n   \n  a dog on grass  \n")
    assert captions_of(dataset(tmp_path), path) == ("a dog", "a dog on grass")


@pytest.mark.parametrize(
    "caption", ["zwx собака на траве", "草地上的狗", "كلب على العشب", "🐕 in the park", "e\u0301te\u0301"]
)
def test_captions_of_any_script_are_kept_as_written(tmp_path: Path, caption: str) -> None:
    path = photo(tmp_path, caption=b"\xef\xbb\xbf" + caption.encode())
    assert captions_of(dataset(tmp_path), path) == (caption,)
    write_caption(path, caption + " again")
    assert captions_of(dataset(tmp_path), path) == (caption + " again",)


def test_file_name_is_a_caption(tmp_path: Path) -> None:
    path = photo(tmp_path, "a_sks_dog__on grass.v2.jpg")
    assert captions_of(dataset(tmp_path, "filename"), path) == ("a sks dog on grass.v2",)
    with pytest.raises(ValueError, match=r"The name of ___\.png says nothing\. Rename it"):
        captions_of(dataset(tmp_path, "filename"), photo(tmp_path, "___.png"))


def test_instance_prompt_goes_before_the_photos_own_captions(tmp_path: Path) -> None:
    path = photo(tmp_path, caption="on grass\nin snow")
    before = dataset(tmp_path, instance_prompt=["a sks dog", "my dog"], prepend_instance_prompt=True)
    assert captions_of(before, path) == (
        "a sks dog on grass",
        "a sks dog in snow",
        "my dog on grass",
        "my dog in snow",
    )


def test_instance_prompt_alone_needs_no_file(tmp_path: Path) -> None:
    path = photo(tmp_path)
    only = dataset(tmp_path, instance_prompt="a sks dog", only_instance_prompt=True)
    check_captions(only, [path])
    assert captions_of(only, path) == ("a sks dog",)


# What is refused


def test_all_missing_files_are_counted_and_the_first_named(tmp_path: Path) -> None:
    photos = [photo(tmp_path, f"{number:02d}.jpg") for number in range(6)]
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the sentence is compared whole
        check_captions(dataset(tmp_path), photos)
    assert str(caught.value) == (
        f"6 of 6 photos in {tmp_path} have no caption file: 00.jpg, 01.jpg, 02.jpg and 3 more. "
        "Write a .txt beside each, such as 00.txt, or set caption_strategy to 'instanceprompt'."
    )
    for path in photos[:5]:
        write_caption(path, "a dog")
    with pytest.raises(ValueError, match=r"^1 of 6 photos in .* has no caption file: 05\.jpg\. Write"):
        check_captions(dataset(tmp_path), photos)
    write_caption(photos[5], "a dog")
    check_captions(dataset(tmp_path), photos)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", r"01\.txt is empty\. Write what the photo shows"),
        (" \n\t\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        ("a dog".encode("utf-16"), r"01\.txt is not UTF-8 text\. Save it again as UTF-8\."),
        (
            "x" * 10_000,
            r"A caption of /.*/01\.txt has 10,000 characters, and the limit is 2,000\. Shorten it",
        ),
        ("fine\n" + "x" * 2_001, "has 2,001 characters"),
    ],
)
def test_wrong_caption_files_are_named(tmp_path: Path, content: str | bytes, words: str) -> None:
    path = photo(tmp_path, caption=content)
    with pytest.raises(ValueError, match=words):
        check_captions(dataset(tmp_path), [path])


def test_captions_up_to_the_limit_are_fine_but_not_beyond_it_together(tmp_path: Path) -> None:
    path = photo(tmp_path, caption="x" * 2_000)
    assert len(captions_of(dataset(tmp_path), path)[0]) == 2_000
    longer = dataset(tmp_path, instance_prompt="a sks dog", prepend_instance_prompt=True)
    with pytest.raises(ValueError, match=r"A caption of /.*/01\.jpg has 2,010 characters"):
        captions_of(longer, path)


def test_long_instance_prompt_is_refused_where_it_is_written() -> None:
    entry = {"id": "a", "instance_data_dir": "photos", "instance_prompt": ["a", "x" * 10_000]}
    with pytest.raises(ValueError, match=r"instance_prompt must have at most 2,000 characters, got 10,000\."):
        parse_dataset(entry)


# Editing


def test_workspace_keeps_captions_beside_the_folder_of_photos(tmp_path: Path) -> None:
    photos = [photo(tmp_path / "photos", f"{number}.png") for number in range(3)]
    assert fill_captions(tmp_path / "photos", "a sks dog") == 3
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == ["0.png", "1.png", "2.png"]
    assert write_caption(photos[1], " a sks dog on grass \n\n a dog") == tmp_path / "captions" / "1.txt"
    assert [captions_of(dataset(tmp_path / "photos"), path) for path in photos] == [
        ("a sks dog",),
        ("a sks dog on grass", "a dog"),
        ("a sks dog",),
    ]
    assert fill_captions(tmp_path / "photos", "another") == 0, "what is written stays"
    added = photo(tmp_path / "photos", "3.png")
    assert fill_captions(tmp_path / "photos", "a new one") == 1
    assert read_captions(caption_file(added)) == ("a new one",)


def test_caption_beside_a_photo_comes_first_and_is_the_one_that_is_edited(tmp_path: Path) -> None:
    path = photo(tmp_path / "photos", caption="beside")
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "01.txt").write_text("in the sibling folder")
    assert captions_of(dataset(tmp_path / "photos"), path) == ("beside",)
    write_caption(path, "changed")
    assert captions_of(dataset(tmp_path / "photos"), path) == ("changed",)
    assert (tmp_path / "captions" / "01.txt").read_text() == "in the sibling folder"


def test_sibling_folder_serves_folders_called_photos_alone(tmp_path: Path) -> None:
    path = photo(tmp_path / "dog")
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "01.txt").write_text("another's")
    assert caption_file(path) is None
    assert write_caption(path, "a dog") == tmp_path / "dog" / "01.txt"


def test_refused_edit_leaves_the_caption_as_it_was(tmp_path: Path) -> None:
    path = photo(tmp_path, caption="a dog")
    for text, words in ((" \n", "The caption of 01.jpg is empty"), ("x" * 10_000, "10,000 characters")):
        with pytest.raises(ValueError, match=words):
            write_caption(path, text)
    assert captions_of(dataset(tmp_path), path) == ("a dog",)
