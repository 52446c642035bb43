"""What a visitor changes about a subject: captions, words and choices; and what never changes."""

from pathlib import Path

import pytest
from PIL import Image

from dreamspace.jobs.workspace import Workspace
from dreamspace.ui import photos_step
from dreamspace.ui.changes import caption_photo, choose_for, choose_sample, editable, remove_photo, rename
from dreamspace.ui.framing import framing
from dreamspace.ui.history import Histories
from dreamspace.ui.library import Run
from dreamspace.ui.new_training import preset_of
from dreamspace.ui.page import Page, View
from dreamspace.ui.subject import Subject
from tests.ui.recorded import record_run


@pytest.fixture
def subject(workspace: Workspace) -> Subject:
    return Subject.read(choose_sample(workspace, "biscuit"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_saving_one_caption_never_loses_the_others(workspace: Workspace, subject: Subject) -> None:
    first, second = (photo.stem for photo in subject.photos[:2])
    assert caption_photo(workspace, subject, first, " on a beach ") == subject
    caption_photo(workspace, subject, second, "on a table\nindoors")
    assert subject.captions() == {first: "on a beach", second: "on a table\nindoors"}
    caption_photo(workspace, subject, first, "by the sea")
    caption_photo(workspace, subject, "../subject", "evil")
    assert subject.captions() == {first: "by the sea", second: "on a table\nindoors"}
    caption_photo(workspace, subject, second, "  ")
    assert subject.captions() == {first: "by the sea"}
    assert [path.name for path in (subject.dir / "captions").iterdir()] == [f"{first}.txt"]


def test_the_instance_prompt_is_no_caption_of_its_own(workspace: Workspace, subject: Subject) -> None:
    caption_photo(workspace, subject, subject.photos[0].stem, "a photo of a sks dog")
    assert subject.captions() == {}


def test_a_caption_is_checked(workspace: Workspace, subject: Subject) -> None:
    photo_id = subject.photos[0].stem
    with pytest.raises(ValueError, match="has 10,000 characters, and the limit is 2,000"):
        caption_photo(workspace, subject, photo_id, "x" * 10_000)
    with pytest.raises(ValueError, match="The words of the caption hold an access token"):
        caption_photo(workspace, subject, photo_id, "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567")
    assert subject.captions() == {}
    caption_photo(workspace, subject, photo_id, "чёрная собака 犬")
    assert subject.captions() == {photo_id: "чёрная собака 犬"}


def test_captions_follow_the_words(workspace: Workspace, subject: Subject) -> None:
    first, second, third = (photo.stem for photo in subject.photos[:3])
    caption_photo(workspace, subject, first, "a photo of a sks dog on a beach")
    caption_photo(workspace, subject, second, "my Biscuit")
    caption_photo(workspace, subject, third, "a photo of a sks dog")
    renamed = rename(workspace, subject, "puppy", "ohwx")
    assert renamed.dir == subject.dir
    assert Subject.read(subject.dir) == renamed
    assert renamed.captions() == {first: "a photo of a ohwx puppy on a beach", second: "my Biscuit"}
    assert renamed.written_captions()[third] == "a photo of a ohwx puppy"


def test_what_a_run_learns_from_is_copied_before_it_changes(workspace: Workspace) -> None:
    subject = Subject.read(Run.read(record_run(workspace, up_to=0, outcome="stopped")).subject_dir(workspace))
    photo_id = subject.photos[0].stem
    before = contents(subject.dir)
    captioned = caption_photo(workspace, subject, photo_id, "a photo of a sks dog on a beach")
    assert captioned.dir != subject.dir
    assert contents(subject.dir) == before
    assert captioned.captions() == {photo_id: "a photo of a sks dog on a beach"}
    assert editable(workspace, captioned) == captioned, "no run learns from the copy"
    assert caption_photo(workspace, subject, photo_id, "") == subject, "nothing changes, nothing is copied"
    assert len(workspace.list_subjects()) == 2


def test_a_photo_goes_with_its_caption_and_its_mask(workspace: Workspace, subject: Subject) -> None:
    photo = subject.photos[0]
    caption_photo(workspace, subject, photo.stem, "on a beach")
    for folder in (subject.raw_masks_dir, subject.masks_dir):
        folder.mkdir()
        Image.new("L", (8, 8)).save(folder / photo.name)
    remove_photo(workspace, subject, photo.stem)
    assert not any(photo.stem in path for path in contents(subject.dir))
    assert len(subject.photos) == 5


def test_choices_are_kept(workspace: Workspace, subject: Subject) -> None:
    chosen = choose_for(subject, use_masks=True, grow=0.125)
    assert Subject.read(subject.dir) == chosen
    assert (chosen.use_masks, chosen.grow, chosen.sample) == (True, 0.125, "biscuit")


def test_the_wall_shows_what_the_geometry_does_to_each_photo(workspace: Workspace, tmp_path: Path) -> None:
    subject = Subject(workspace.new_subject_dir("dog"), "dog")
    subject.photos_dir.mkdir()
    Image.new("RGB", (400, 200)).save(subject.photos_dir / "a.png")
    Image.new("RGB", (60, 80)).save(subject.photos_dir / "b.png")
    subject.write()
    wide, small = (framing(photo, 128) for photo in subject.photos)
    assert wide.crop_percent == pytest.approx((25, 0, 50, 100))
    assert wide.note == "128 × 128 px"
    assert small.note == "128 × 128 px, enlarged 2.1×"
    assert "will look soft" in small.remarks[0]
    page = Page(workspace, Histories(), View(subject_id=subject.dir.name))
    wall = photos_step._wall(page)
    assert preset_of(page).resolution == 128
    assert "left:25.00%;top:0.00%;width:50.00%;height:100.00%" in wall
    assert "enlarged 2.1×" in wall
    assert wall.count('placeholder="a photo of a sks dog"') == 2


def test_what_is_typed_into_a_caption_stays_text(workspace: Workspace, subject: Subject) -> None:
    evil = '<img src=x onerror=alert(1)>"></textarea>${alert(2)}'
    view = View(subject_id=subject.dir.name)
    look = Page(workspace, Histories(), view)
    assert photos_step._caption(look, {"id": subject.photos[0].stem, "text": evil}) == view
    wall = photos_step._wall(Page(workspace, Histories(), view))
    assert "<img src=x" not in wall
    assert "1 with a caption of its own" in wall
