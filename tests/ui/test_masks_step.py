"""The step of the masks: what is drawn, what is shaped, and what of a painting is taken."""

import base64
import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image, ImageDraw, PngImagePlugin
from PIL.PngImagePlugin import PngInfo

from dreamspace.data.masks import find_mask
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.job import Job
from dreamspace.jobs.workspace import Workspace
from dreamspace.ui import masks_step, new_training, overview
from dreamspace.ui.changes import choose_for
from dreamspace.ui.framing import framing
from dreamspace.ui.history import Histories
from dreamspace.ui.library import Run
from dreamspace.ui.masks import (
    draw_cells,
    draw_overlay,
    paintable_mask,
    paintable_size,
    save_painting,
    shaped_mask,
    write_masks,
)
from dreamspace.ui.media import mask_url, media_router
from dreamspace.ui.page import Page, View
from dreamspace.ui.subject import Subject
from tests.ui.recorded import record_run


def mask_all(subject: Subject) -> None:
    """An ellipse as the raw mask of each photo."""
    subject.raw_masks_dir.mkdir()
    mask = Image.new("L", (256, 256))
    ImageDraw.Draw(mask).ellipse((80, 60, 170, 200), fill=255)
    for photo in subject.photos:
        mask.save(subject.raw_masks_dir / photo.name)


@pytest.fixture
def subject(workspace: Workspace) -> Subject:
    """Six photos of 256 px."""
    subject = Subject(workspace.new_subject_dir("dog"), "dog")
    subject.photos_dir.mkdir()
    for number in range(6):
        photo = Image.linear_gradient("L").rotate(60 * number).convert("RGB")
        photo.save(subject.photos_dir / f"photo{number}.png")
    subject.write()
    return subject


@pytest.fixture
def look(workspace: Workspace, subject: Subject) -> Callable[[], Page]:
    return lambda: Page(workspace, Histories(), View(subject_id=subject.dir.name, step="masks"))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What was started instead of a job."""
    calls: list[tuple] = []
    monkeypatch.setattr(masks_step, "start_job", lambda *arguments, **options: calls.append(arguments))
    return calls


def data_url(image: Image.Image, kind: str = "png", **options: object) -> str:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()


def pieces(text: str = "", **chunks: bytes) -> PngInfo:
    """Parts of a PNG, of which Pillow refuses the wrong ones with errors of many kinds."""
    info = PngInfo()
    info.add_text("comment", text, zip=True)
    for name, content in chunks.items():
        info.add(name.encode(), content)
    return info


def square(size: tuple[int, int], mode: str = "RGBA") -> Image.Image:
    """White on black, as the editor sends it."""
    image = Image.new(mode, size, "black")
    ImageDraw.Draw(image).rectangle((64, 64, 191, 191), fill="white")
    return image


def test_a_job_is_started_for_the_subject_and_the_masks_will_be_used(
    look: Callable[[], Page], subject: Subject, started: list[tuple], workspace: Workspace
) -> None:
    view = masks_step._find(look(), {}, " dog ")
    assert view == look().view
    [(where, _, kind, arguments)] = started
    assert (where, kind) == (workspace, "mask")
    assert arguments == {
        "photos": str(subject.photos_dir), "out": str(subject.raw_masks_dir), "subject_text": "dog",
        "method": "auto", "model": None, "overwrite": False, "threshold": None, "fill_holes": False,
        "keep_largest": False, "grow_px": 0, "feather_px": 0.0, "invert": False,
    }  # fmt: skip
    assert Subject.read(subject.dir).use_masks
    masks_step._find_again(look(), {}, "dog")
    assert started[1][3]["overwrite"]


def test_without_a_class_word_nothing_is_looked_for(look: Callable[[], Page], started: list[tuple]) -> None:
    with pytest.raises(ValueError, match="class_word is empty"):
        masks_step._find(look(), {}, "  ")
    assert started == []


def test_a_job_calls_photos_by_their_numbers(
    look: Callable[[], Page], subject: Subject, workspace: Workspace
) -> None:
    job_dir = workspace.new_job_dir("masks dog")
    Job(kind="mask", arguments={"photos": str(subject.photos_dir)}, submitted=time.time()).write(job_dir)
    assert "Starting." in masks_step._state(look())
    assert not masks_step._find_button(look())["visible"]
    with pytest.raises(ValueError, match=r"^These photos are being masked already\."):
        masks_step._find(look(), {}, "dog")
    events = EventWriter(job_dir)
    events.write("progress", step=2, num_steps=6)
    events.write("warning", message=f"No dog was found in {subject.photos[1].stem}.", hint="Paint it <b>.")
    state = masks_step._state(look())
    assert "width:33%" in state
    assert "No dog was found in photo 2. Paint it &lt;b&gt;." in state
    events.write("failed", error="ValueError", message="There is no model here.", hint="Take grabcut.")
    state = masks_step._state(look())
    assert "There is no model here. Take grabcut." in state
    assert masks_step._find_button(look())["visible"]
    assert "looking" not in overview._steps(look())


def test_masks_of_a_run_are_looked_for_in_a_copy(workspace: Workspace, started: list[tuple]) -> None:
    run_dir = record_run(workspace, up_to=0, outcome="stopped")
    page = Page(workspace, Histories(), View(run_id=run_dir.name, step="masks"))
    view = masks_step._find(page, {}, "dog")
    assert view.run_id == ""
    assert started[0][3]["photos"] == str(workspace.subject_dir(view.subject_id) / "photos")
    assert not Run.read(run_dir).subject_dir(workspace).joinpath("masks_raw").exists()


def test_a_painting_becomes_the_raw_mask(look: Callable[[], Page], subject: Subject) -> None:
    photo = subject.photos[0]
    assert paintable_size(photo) == (256, 256)
    masks_step._save(look(), {"id": photo.stem, "painting": data_url(square((256, 256)))})
    with Image.open(subject.raw_mask(photo)) as raw:
        assert (raw.mode, raw.size) == ("L", (256, 256))
        assert raw.getbbox() == (64, 64, 192, 192)
    assert Subject.read(subject.dir).use_masks
    assert paintable_mask(subject, photo).getpixel((100, 100)) == 255
    masks_step._forget(look(), {"id": photo.stem})
    assert subject.raw_mask(photo) is None


def test_a_large_photo_is_painted_small_and_its_mask_is_as_large_as_it(subject: Subject) -> None:
    photo = subject.photos_dir / "large.png"
    Image.new("RGB", (1600, 800)).save(photo)
    assert paintable_size(photo) == (640, 320)
    save_painting(subject, photo, data_url(square((640, 320))))
    with Image.open(subject.raw_mask(photo)) as raw:
        assert raw.size == (1600, 800)
        assert raw.getpixel((300, 300)) == 255
        assert raw.getpixel((900, 300)) == 0


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "painting",
    [
        "",
        "x",
        data_url(square((255, 256))),
        data_url(square((256, 256), "RGB"), "jpeg"),
        data_url(square((256, 256)))[:-40],
        data_url(square((256, 256))).replace("image/png", "image/svg+xml"),
        "data:image/png;base64,*" + "A" * 100,
        "data:image/png;base64," + "A" * 4_000_000,
        "data:image/png;base64," + base64.b64encode(b"<svg onload=alert(1)>").decode(),
        data_url(Image.new("1", (12_000, 12_000))),
        data_url(square((256, 256)), pnginfo=pieces(text="a" * (PngImagePlugin.MAX_TEXT_CHUNK + 1))),
        data_url(square((256, 256)), pnginfo=pieces(cHRM=b"short")),
    ],
    ids=[
        "nothing",
        "no image",
        "size",
        "jpeg",
        "cut off",
        "svg",
        "no base64",
        "huge",
        "no png",
        "bomb",
        "long text",
        "short piece",
    ],
)
def test_a_painting_that_is_none_changes_nothing(
    look: Callable[[], Page], subject: Subject, painting: str
) -> None:
    with pytest.raises(ValueError, match=r"^The painted mask did not arrive whole\."):
        masks_step._save(look(), {"id": subject.photos[0].stem, "painting": painting})
    assert not subject.raw_masks_dir.exists()


@pytest.mark.parametrize("photo", ["", "../subject", "nobody", "../../priors/x"])
def test_only_photos_of_the_subject_are_painted(
    look: Callable[[], Page], subject: Subject, photo: str
) -> None:
    masks_step._save(look(), {"id": photo, "painting": data_url(square((256, 256)))})
    masks_step._forget(look(), {"id": photo})
    assert not subject.raw_masks_dir.exists()


def test_shaping_can_be_changed_back(look: Callable[[], Page], subject: Subject) -> None:
    mask_all(subject)
    raw = {path.name: path.read_bytes() for path in subject.raw_masks_dir.iterdir()}

    def shares() -> list[float]:
        folder = write_masks(Subject.read(subject.dir))
        return [np.asarray(Image.open(folder / photo.name)).mean() / 255 for photo in subject.photos]

    plain = shares()
    masks_step._shape(look(), {}, 4, 0, False)
    grown = shares()
    assert all(large > small * 1.1 for large, small in zip(grown, plain, strict=True))
    masks_step._shape(look(), {}, -2, 6, True)
    assert all(share > 0.6 for share in shares()), "inverted"
    masks_step._shape(look(), {}, 0, 0, False)
    assert shares() == plain
    assert {path.name: path.read_bytes() for path in subject.raw_masks_dir.iterdir()} == raw
    assert all(find_mask(photo, [subject.masks_dir]) for photo in subject.photos)


def test_growing_is_the_same_part_of_photos_of_any_size(tmp_path: Path) -> None:
    widths = []
    for edge in (128, 1024):
        mask = Image.new("L", (edge, edge))
        ImageDraw.Draw(mask).rectangle((edge // 4, edge // 4, edge * 3 // 4 - 1, edge * 3 // 4 - 1), fill=255)
        mask.save(tmp_path / f"{edge}.png")
        subject = Subject(tmp_path, grow=1 / 16)
        left, _, right, _ = shaped_mask(subject, tmp_path / f"{edge}.png", 2048).getbbox()
        widths.append((right - left) / edge)
    assert widths == pytest.approx([0.625, 0.625], abs=0.01)


def test_a_slider_that_was_not_moved_changes_nothing(workspace: Workspace) -> None:
    run_dir = record_run(workspace, up_to=0, outcome="stopped")
    page = Page(workspace, Histories(), View(run_id=run_dir.name, step="masks"))
    assert masks_step._shape(page, {}, 0, 0, False) == page.view
    assert len(workspace.list_subjects()) == 1


def test_a_photo_without_a_mask_is_named_before_anything_starts(
    look: Callable[[], Page], subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask_all(subject)
    for number in (2, 5):
        subject.raw_mask(subject.photos[number - 1]).unlink()
    subject = choose_for(subject, use_masks=True)
    assert subject.unmasked() == [2, 5]
    with pytest.raises(ValueError, match=r"^Photos 2, 5 have no mask yet\. Mask the subject in step 2"):
        new_training.check_masks(subject)
    new_training.check_masks(replace(subject, use_masks=False))
    assert masks_step._find_button(look())["value"] == "Mask the 2 others"
    assert masks_step._wall(look()).count("no mask yet") == 2
    assert "2 missing" in overview._steps(look())


def test_the_overlay_is_dark_outside_and_the_cells_are_those_of_the_loss(
    subject: Subject, tmp_path: Path
) -> None:
    photo = subject.photos_dir / "photo3.png"  # bright above, dark below
    mask = square((256, 256)).convert("L")
    mask.save(tmp_path / "mask.png")
    original = np.asarray(Image.open(photo).convert("RGB"), dtype=float)
    overlay = np.asarray(draw_overlay(photo, mask), dtype=float)
    assert np.abs(overlay - original)[80:170, 80:170].max() == 0
    assert overlay[:40].mean() < 0.7 * original[:40].mean()
    assert overlay[63, 100:150].mean() > 200, "a line along the edge"

    cells = np.asarray(draw_cells(photo, tmp_path / "mask.png", framing(photo, 128).geometry), dtype=float)
    factor = cells.shape[0] // 16
    bright = cells.reshape(16, factor, 16, factor, 3).mean(axis=(1, 3, 4))
    small = np.asarray(Image.open(photo).convert("RGB").resize((16, 16), Image.Resampling.BOX), dtype=float)
    assert np.abs(bright - small.mean(axis=2))[4:12, 4:12].max() < 12
    assert (bright[0] < 0.7 * small[0].mean(axis=1)).all()


@pytest.fixture
def client(workspace: Workspace) -> TestClient:
    app = FastAPI()
    app.include_router(media_router(workspace))
    return TestClient(app)


def test_pictures_of_a_mask_are_served_and_change_their_address_with_it(
    client: TestClient, subject: Subject, workspace: Workspace
) -> None:
    photo = subject.photos[0]
    assert client.get(mask_url(subject, photo, "overlay")).status_code == 404
    assert client.get(mask_url(subject, photo, "paint")).status_code == 200
    mask_all(subject)
    views = {"overlay": (256, 256), "paint": (256, 256), "cells": (320, 320)}
    for view, size in views.items():
        answer = client.get(mask_url(subject, photo, view, 128))
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert Image.open(BytesIO(answer.content)).size == size
    grown = choose_for(subject, grow=0.05)
    assert mask_url(grown, photo, "overlay") != mask_url(subject, photo, "overlay")
    assert (
        client.get(mask_url(grown, photo, "overlay")).content
        != client.get(mask_url(choose_for(grown, grow=0.0), photo, "overlay")).content
    )


@pytest.mark.parametrize(
    "path",
    [
        "{subject}/{photo}/secret",
        "{subject}/{photo}/cells",
        "{subject}/{photo}/cells?r=127",
        "{subject}/{photo}/cells?r=136",
        "{subject}/{photo}/overlay?r=65",
        "{subject}/{photo}/cells?r=999999",
        "{subject}/nobody/overlay",
        "{subject}/..%2fsubject/overlay",
        "nobody/{photo}/overlay",
        "%2e%2e/{photo}/overlay",
    ],
)
def test_anything_else_of_a_mask_does_not_exist(client: TestClient, subject: Subject, path: str) -> None:
    mask_all(subject)
    given = path.format(subject=subject.dir.name, photo=subject.photos[0].stem)
    assert client.get(f"/media/masks/{given}").status_code == 404
