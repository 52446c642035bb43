"""`tokens`, `lookalikes` and `words` on mini, as commands: jobs with events, pictures and reports."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tiny_runs import assert_refused

from dreamspace.jobs.control import request
from dreamspace.jobs.events import EVENTS_FILE, EventWriter, read_events
from dreamspace.mini.subjects import write_photos
from dreamspace.models import class_images
from dreamspace.prompts import drawing
from dreamspace.prompts.lookalikes_job import lookalikes
from dreamspace.prompts.names import bundled_names
from dreamspace.prompts.sheet import MAX_EDGE_PX
from dreamspace.prompts.tokens_job import tokens

Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def photos_of_biscuit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("biscuit")
    write_photos("biscuit", folder)
    return folder


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few and rough pictures."""
    monkeypatch.setattr(class_images, "NUM_INFERENCE_STEPS", 2)
    monkeypatch.setattr(drawing, "SEEDS", (0, 1))
    monkeypatch.setattr("dreamspace.prompts.tokens_job.NUM_PROBED", 1)
    monkeypatch.setattr("dreamspace.prompts.lookalikes_job.NUM_PROBED", 1)


def events_of(job_dir: Path, kind: str) -> list[dict]:
    return [event for event in read_events(job_dir / EVENTS_FILE)[0] if event["kind"] == kind]


@pytest.mark.usefixtures("_quick")
def test_tokens_names_rare_ones_with_reasons_pictures_and_a_sheet(shell: Shell, tmp_path: Path) -> None:
    options = ["--check", "sks", "--check", "dog", "--check", "zzqx", "--count", "5", "--probe"]
    status, output, errors = shell("tokens", *options, "--json", "--out", tmp_path)
    assert status == 0, errors
    report = json.loads(output)
    assert report == json.loads((tmp_path / "tokens.json").read_text())
    rows = {row["word"]: row for row in report["tokens"]}
    assert len(rows) == 5 + 3
    assert rows["dog"]["has_meaning"]
    assert rows["dog"]["is_listed"]
    assert rows["dog"]["reason"].startswith("taught to the encoder")
    assert rows["sks"]["encoders"]["text_encoder"]["is_known"] is False
    assert rows["zzqx"]["reason"] == "4 pieces in tokenizer: z z q x</w>"
    assert (rows["zzqx"]["encoders"], rows["zzqx"]["look"]) == ({}, None)
    drawn = [row for row in report["tokens"] if row["pictures"]]
    assert {"sks", "dog"} < {row["word"] for row in drawn}
    assert len(drawn) == 3
    assert all(set(row["look"]) == {"drift", "agreement"} for row in drawn)
    job_dir = Path(errors.rpartition("Done: ")[2].strip()).parent
    samples = events_of(job_dir, "sample")
    assert [event["path"] for event in samples[:2]] == report["class_pictures"]
    assert len(samples) == 2 * (1 + len(drawn))
    assert all((job_dir / event["path"]).is_file() for event in samples)
    with Image.open(tmp_path / "tokens.png") as sheet:
        assert sheet.height == 128 * (1 + len(drawn))


@pytest.mark.usefixtures("_quick")
def test_lookalikes_finds_the_colour_of_the_dog(
    shell: Shell, photos_of_biscuit: Path, tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text("green\nbrown\npurple striped\n")
    options = [photos_of_biscuit, "--names", tmp_path / "names.txt", "--name", "Biscuit", "--probe"]
    status, output, errors = shell("lookalikes", *options, "--out", tmp_path)
    assert status == 0, errors
    report = json.loads((tmp_path / "lookalikes.json").read_text())
    by_clip = sorted(report["names"], key=lambda row: -row["clip"])
    assert by_clip[0]["name"] == "brown"
    drawn = [row["name"] for row in report["names"] if row["pictures"]]
    assert sorted(drawn) == ["", "Biscuit", "brown"]
    assert report["advice"] in output
    first = events_of(Path(output.partition("Done: ")[2].split()[0]).parent, "sample")[0]
    assert first["prompt"] == "a photo of a Biscuit dog"
    with Image.open(tmp_path / "lookalikes.png") as sheet:
        assert sheet.height == MAX_EDGE_PX * 4


def test_single_photo_is_warned_of(shell: Shell, photos_of_biscuit: Path, tmp_path: Path) -> None:
    only = tmp_path / "photos"
    only.mkdir()
    (only / "one.png").write_bytes((photos_of_biscuit / "biscuit-0.png").read_bytes())
    status, output, errors = shell("lookalikes", only)
    assert status == 0
    assert "There is one photo, so that likeness counts its background" in errors
    assert "brown" in output.partition("name ")[2].splitlines()[1]


@pytest.mark.parametrize("job", ["tokens", "lookalikes"])
def test_job_that_is_stopped_while_it_draws_leaves_its_first_report(
    job: str, photos_of_biscuit: Path, tmp_path: Path
) -> None:
    request(tmp_path, "stop")
    arguments = {"model": "mini", "class_word": "dog", "probe": True, "clip": None}
    if job == "tokens":
        tokens(tmp_path, arguments | {"count": 3, "check": []}, EventWriter(tmp_path))
    else:
        own = {"photos": str(photos_of_biscuit), "names": bundled_names("dog")[:3], "own_name": None}
        lookalikes(tmp_path, arguments | own, EventWriter(tmp_path))
    assert [event["path"] for event in events_of(tmp_path, "stopped")] == [f"{job}.json"]
    assert json.loads((tmp_path / f"{job}.json").read_text())["class_word"] == "dog"
    assert not (tmp_path / f"{job}.png").exists()


def test_words_shows_pieces_and_the_final_caption_of_each_photo(
    shell: Shell, photos_of_biscuit: Path, tmp_path: Path
) -> None:
    status, output, _ = shell("words", "a photo of a sks dog", "--photos", photos_of_biscuit)
    assert status == 0
    assert "6 pieces, of which 6 are read" in output
    assert "a</w> photo</w> of</w> a</w> sks</w> dog</w>" in output
    assert "yours to fill: sks" in output
    assert output.count(".png: a photo of a sks dog\n") == 6
    datasets = [
        {
            "id": "subject",
            "instance_data_dir": str(photos_of_biscuit),
            "caption_strategy": "filename",
            "instance_prompt": "a photo of a sks dog",
            "prepend_instance_prompt": True,
        }
    ]
    (tmp_path / "multidatabackend.json").write_text(json.dumps(datasets))
    status, output, _ = shell("words", "a dog", "--datasets", tmp_path / "multidatabackend.json")
    assert "biscuit-0.png: a photo of a sks dog biscuit-0" in output
    status, output, _ = shell("words", "a dog " + "and a very small cat " * 8)
    assert status == 0
    assert "It never sees" in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tokens", "--count", "0"], ["--count must be 1 to 200, got 0"]),
        (["tokens", "--check", "a dog"], ["--check takes one word, got 'a dog'"]),
        (["tokens", "--check", " "], ["it is empty"]),
        (["tokens", "--chek", "x"], ["Did you mean '--check'?"]),
        (["lookalikes", "nowhere"], ["There is no folder"]),
        (["words", "a dog", "--model", "minni"], ["There is no model 'minni'", "Did you mean 'mini'?"]),
        (["words", "a dog", "--captions"], ["--captions are those of --photos"]),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(shell: Shell, arguments: list[str], words: list[str]) -> None:
    assert_refused(shell(*arguments), *words)


def test_names_that_cannot_be_read_and_datasets_beside_photos_are_refused(
    shell: Shell, photos: Path, tmp_path: Path
) -> None:
    assert_refused(shell("lookalikes", photos, "--names", tmp_path / "none.txt"), "There is no file")
    assert_refused(
        shell("words", "a dog", "--photos", photos, "--datasets", tmp_path / "x.json"), "Leave out --photos"
    )


def test_clip_that_does_not_exist_is_named(shell: Shell, tiny_model: Path, photos: Path) -> None:
    result = shell("lookalikes", photos, "--model", tiny_model, "--clip", "ViT-Q-32")
    assert_refused(result, "There is no CLIP 'ViT-Q-32'")
