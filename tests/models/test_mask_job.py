"""The `mask` job: a mask a photo, kept, stopped and resumed; and the command that starts it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dreamspace.cli import main
from dreamspace.jobs.control import request
from dreamspace.jobs.events import Event, EventWriter, read_events
from dreamspace.models import mask_job
from dreamspace.models.mask_job import mask

PLAIN = {
    "subject_text": "",
    "method": "grabcut",
    "model": None,
    "overwrite": False,
    "threshold": None,
    "fill_holes": False,
    "keep_largest": False,
    "grow_px": 0,
    "feather_px": 0,
    "invert": False,
}
BOX = (60, 40, 140, 110)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photos of a red box on a green ground, one with a name in capitals."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "B.JPG"):
        image = Image.new("RGB", (200, 150), (60, 160, 70))
        ImageDraw.Draw(image).rectangle(BOX, fill=(200, 40, 30))
        image.save(folder / name)
    return folder


def run(tmp_path: Path, photos: Path, **options: Any) -> list[Event]:
    """Run the job; returns the events of this attempt."""
    (tmp_path / "job").mkdir(exist_ok=True)
    events = EventWriter(tmp_path / "job")
    before = len(read_events(tmp_path / "job" / "events.jsonl")[0])
    mask(
        tmp_path / "job", {**PLAIN, "photos": str(photos), "out": str(tmp_path / "masks"), **options}, events
    )
    return read_events(tmp_path / "job" / "events.jsonl")[0][before:]


def test_masks_show_the_subject_at_the_photos_size(tmp_path: Path, photos: Path) -> None:
    events = run(tmp_path, photos, method="auto")
    truth = Image.new("L", (200, 150))
    ImageDraw.Draw(truth).rectangle(BOX, fill=255)
    for name in ("a.png", "B.png"):
        found = Image.open(tmp_path / "masks" / name)
        assert (found.mode, found.size) == ("L", (200, 150))
        both = np.asarray(found) > 127, np.asarray(truth) > 127
        assert (both[0] & both[1]).sum() / (both[0] | both[1]).sum() > 0.93
    progress = [(event["step"], event["num_steps"]) for event in events if event["kind"] == "progress"]
    assert progress == [(0, 2), (1, 2), (2, 2)]
    assert "Masking by grabcut." in [event["message"] for event in events if event["kind"] == "stage"]
    assert (events[-1]["kind"], events[-1]["step"], events[-1]["path"]) == (
        "done",
        2,
        str(tmp_path / "masks"),
    )


def test_masks_that_are_there_are_kept_unless_told_otherwise(tmp_path: Path, photos: Path) -> None:
    run(tmp_path, photos)
    white = Image.new("L", (200, 150), 255)
    white.save(tmp_path / "masks" / "a.png")
    assert run(tmp_path, photos)[-1]["step"] == 0
    assert np.asarray(Image.open(tmp_path / "masks" / "a.png")).min() == 255
    run(tmp_path, photos, overwrite=True, invert=True)
    pixels = np.asarray(Image.open(tmp_path / "masks" / "a.png"))
    assert (pixels[75, 100], pixels[5, 5]) == (0, 255)


def test_a_request_to_stop_is_heard_and_the_rest_is_done_later(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "job").mkdir()
    request(tmp_path / "job", "stop")
    assert run(tmp_path, photos)[-1]["kind"] == "stopped"
    assert run(tmp_path, photos)[-1]["step"] == 2


def test_photos_without_a_subject_count_whole_and_bad_ones_are_left_out(tmp_path: Path, photos: Path) -> None:
    Image.new("RGB", (64, 64), (80, 80, 80)).save(photos / "empty.png")
    (photos / "bad.png").write_bytes(b"no photo")
    events = run(tmp_path, photos)
    warnings = [event["message"] for event in events if event["kind"] == "warning"]
    assert warnings[0].startswith("No mask of bad.png: ")
    assert warnings[1] == "No subject was found in empty, so all of this photo counts."
    assert np.asarray(Image.open(tmp_path / "masks" / "empty.png")).min() == 255
    assert not (tmp_path / "masks" / "bad.png").exists()
    assert events[-1]["kind"] == "done"


def test_a_text_guided_method_is_asked_for_the_subject(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Segmenter:
        name = "sam3"

        def mask(self, photo: Image.Image, text: str) -> np.ndarray:
            asked.append((photo.size, text))
            return np.ones(photo.size[::-1], np.float32)

    monkeypatch.setattr(mask_job, "best_available", lambda model: "sam3")
    monkeypatch.setattr(mask_job, "open_segmenter", lambda method, model, device: Segmenter())
    run(tmp_path, photos, method="auto", subject_text="dog")
    assert asked == [((200, 150), "dog")] * 2
    with pytest.raises(ValueError, match=r"sam3 finds the subject by its name\. Give it by --subject-text"):
        run(tmp_path, photos, method="sam3", overwrite=True)


def test_a_threshold_says_what_counts_as_found(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faint = np.zeros((150, 200), np.float32)
    faint[40:110, 60:140] = 0.45
    monkeypatch.setattr(mask_job, "grabcut", lambda pixels: faint)
    run(tmp_path, photos, threshold=0.3)
    pixels = np.asarray(Image.open(tmp_path / "masks" / "a.png"))
    assert (pixels[75, 100], pixels[5, 5]) == (255, 0)
    assert any(event["kind"] == "warning" for event in run(tmp_path, photos, overwrite=True))


def test_shaping_that_leaves_nothing_is_said(tmp_path: Path, photos: Path) -> None:
    events = run(tmp_path, photos, grow_px=-60)
    warnings = [event["message"] for event in events if event["kind"] == "warning"]
    assert warnings[0] == "Shaping leaves nothing of the subject in B, so all of this photo counts."
    assert np.asarray(Image.open(tmp_path / "masks" / "a.png")).min() == 255


def test_photos_that_would_share_a_mask_are_refused(tmp_path: Path, photos: Path) -> None:
    Image.new("RGB", (64, 64)).save(photos / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg and a\.png would share the mask a\.png"):
        run(tmp_path, photos)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--method", "grabcat"], "Did you mean 'grabcut'?"),
        (["--threshold", "2"], "between 0 and 1, got 2"),
        (["--out", "PHOTOS"], "--out is the photos' own folder"),
    ],
)
def test_bad_options_are_one_sentence(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    given = [str(photos) if option == "PHOTOS" else option for option in options]
    command = ["mask", str(photos), "--out", str(tmp_path / "masks"), *given]
    try:
        status = main(command)
    except SystemExit as end:
        status = end.code
    assert status == 2
    assert sentence in capsys.readouterr().err
