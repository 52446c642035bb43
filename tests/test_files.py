import stat
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dreamspace.files import read_json, replace_file, write_json


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_two_threads_that_write_one_file_each_publish_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "thumbnail.webp"
    both_write = threading.Barrier(2, timeout=10)
    failures: list[Exception] = []

    def write(letter: str) -> None:
        try:
            with replace_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
                file.write(letter)
                both_write.wait()
                file.write(letter)
        except (OSError, threading.BrokenBarrierError) as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert path.read_text(encoding="utf-8") in ("aa", "bb")
    assert [file.name for file in tmp_path.iterdir()] == ["thumbnail.webp"]


def test_the_temporary_file_is_hidden_beside_its_target_and_keeps_the_suffix(tmp_path: Path) -> None:
    with replace_file(tmp_path / "new" / "photo.png") as temporary:
        assert temporary.parent == tmp_path / "new"
        assert temporary.name.startswith(".photo.")
        assert temporary.suffix == ".png"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    write_json(path, {"seed": 1})
    with pytest.raises(TypeError):
        write_json(path, {"seed": object()})
    assert read_json(path) == {"seed": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_weights_may_be_read_by_those_who_may_read_any_other_file(tmp_path: Path) -> None:
    with open(tmp_path / "ordinary", "w"):
        pass
    with replace_file(tmp_path / "weights.safetensors") as temporary:
        save_file({"weight": torch.zeros(2)}, temporary)
    assert mode(tmp_path / "weights.safetensors") == mode(tmp_path / "ordinary")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            b'{"seed": 1,',
            r"pair\.json is not valid JSON at line 1, column 12: .* The file is cut off there\.",
        ),
        (b'{"seed": one}', r"pair\.json is not valid JSON at line 1, column 10: "),
        (b"[" * 100_000, r"pair\.json nests lists and objects more than 50 deep"),
        (b"[" * 51 + b"]" * 51, r"pair\.json nests lists and objects more than 50 deep"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, r"pair\.json nests lists and objects more than 50 deep"),
        (b"1" * 5000, r"pair\.json is not valid JSON: .*digits"),
        ('{"token": "Hündin"}'.encode("latin-1"), r"pair\.json is no text in UTF-8\. Save it as such\."),
        (b"", r"pair\.json is empty\. "),
        (b"\xef\xbb\xbf \n", r"pair\.json is empty\. "),
    ],
)
def test_file_that_is_no_json_is_refused_by_its_name(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "pair.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        read_json(path)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no file .*pair\.json\. Check the path\."):
        read_json(tmp_path / "pair.json")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        read_json(tmp_path)


def test_json_with_a_byte_order_mark_or_many_levels_is_read(tmp_path: Path) -> None:
    (tmp_path / "marked.json").write_text('{"token": "Hündin"}', encoding="utf-8-sig")
    assert read_json(tmp_path / "marked.json") == {"token": "Hündin"}
    write_json(tmp_path / "wide.json", [[{"a": []}] * 3] * 60)
    assert read_json(tmp_path / "wide.json") == [[{"a": []}] * 3] * 60
    (tmp_path / "deep.json").write_text("[" * 50 + "]" * 50)
    assert len(read_json(tmp_path / "deep.json")) == 1
