"""The step of the words: what is looked for, what is found, and the word that is taken."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect

from dreamspace.files import write_json
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.job import Job, ProcessRecord
from dreamspace.jobs.process import ProcessIdentity
from dreamspace.jobs.workspace import Workspace
from dreamspace.prompts.names import bundled_names
from dreamspace.ui import words_step
from dreamspace.ui.changes import choose_sample, write_caption
from dreamspace.ui.history import Histories
from dreamspace.ui.page import Page, View
from dreamspace.ui.subject import Subject
from dreamspace.ui.words_panels import lookalikes_panel, tokens_panel, view_panel
from tests.ui.app_process import App
from tests.ui.forms import EXPERT_VALUES, FORM, text_of
from tests.ui.recorded import record_run


@pytest.fixture
def look(workspace: Workspace) -> Callable[[], Page]:
    subject_dir = choose_sample(workspace, "biscuit")
    return lambda: Page(workspace, Histories(), View(subject_id=subject_dir.name, step="words"))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What was started instead of a job."""
    calls: list[tuple] = []
    monkeypatch.setattr(words_step, "start_job", lambda *arguments: calls.append(arguments))
    return calls


def finished(workspace: Workspace, kind: str, arguments: dict[str, Any], report: dict[str, Any]) -> Path:
    """The folder of a job as it lies there when it is done."""
    job_dir = workspace.new_job_dir(kind)
    Job(kind=kind, arguments={"model": "mini", "class_word": "dog"} | arguments, submitted=1.0).write(job_dir)
    (job_dir / "images").mkdir()
    Image.new("RGB", (128, 128), (200, 90, 90)).save(job_dir / "images" / "a.png")
    write_json(job_dir / f"{kind}.json", report)
    EventWriter(job_dir).write("done", path=f"{kind}.json")
    return job_dir


def found_tokens(workspace: Workspace) -> Path:
    def row(word: str, **values: Any) -> dict[str, Any]:
        usual = {"has_meaning": False, "is_one_piece": True, "is_checked": False, "look": None}
        return {"word": word, "reason": f"because of {word}", "pictures": []} | usual | values

    look = {"drift": {"mean": 0.0, "t": 0.1}, "agreement": {"mean": 0.0, "t": 0.1}}
    rows = [
        row("zwx", look=look, pictures=["images/a.png"]),
        row("ylor"),
        row("sks", is_checked=True, has_meaning=True),
        row("<b>x", is_checked=True, is_one_piece=False),
    ]
    report = {"class_word": "dog", "class_pictures": ["images/a.png"], "tokens": rows}
    return finished(workspace, "tokens", {}, report)


def found_lookalikes(workspace: Workspace, subject: Subject) -> Path:
    def row(name: str, likeness: float | None) -> dict[str, Any]:
        pictures = ["images/a.png"] if likeness else []
        return {"name": name, "reason": "why", "clip": 0.4, "likeness": likeness, "pictures": pictures}

    report = {
        "class_word": "dog",
        "photos_likeness": 0.74,
        "recommended": "brown",
        "advice": "Take brown.",
        "names": [row("brown", 0.61), row("", 0.38), row("pug", None)],
    }
    return finished(workspace, "lookalikes", {"photos": str(subject.photos_dir)}, report)


def test_what_is_looked_for_is_what_the_fields_say(look: Callable[[], Page], started: list[tuple]) -> None:
    words_step._find(look(), FORM, "sks, ohwx sks", True)
    words_step._compare(look(), FORM, " Bis  cuit ", "", False)
    words_step._compare(look(), FORM, "", "pug\n\n  golden   retriever", True)
    common = {"model": "mini", "class_word": "dog", "clip": None}
    own = common | {"photos": str(look().subject.photos_dir)}
    assert [(kind, arguments) for _, _, kind, arguments in started] == [
        ("tokens", common | {"probe": True, "count": 20, "check": ["sks", "ohwx"]}),
        ("lookalikes", own | {"probe": False, "names": bundled_names("dog"), "own_name": "Bis cuit"}),
        ("lookalikes", own | {"probe": True, "names": ["pug", "golden retriever"], "own_name": None}),
    ]


@pytest.mark.parametrize(
    ("changes", "words", "sentence"),
    [
        ({"class_word": " "}, "", "class_word is empty"),
        ({}, "a b c d e f g h i", "At most 8 words are judged at once, got 9"),
        ({}, "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567", "The words to judge hold an access token"),
        (
            {"experts": {**EXPERT_VALUES, "pretrained_model_name_or_path": "/etc"}},
            "",
            "In the app the base model is",
        ),
    ],
)
def test_what_cannot_be_looked_for_is_said(
    look: Callable[[], Page], started: list[tuple], changes: dict, words: str, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        words_step._find(look(), replace(FORM, **changes), words, True)
    assert started == []


def test_names_are_compared_with_photos_and_only_once_at_a_time(
    look: Callable[[], Page], workspace: Workspace, started: list[tuple]
) -> None:
    with pytest.raises(ValueError, match="There are no photos yet"):
        words_step._compare(Page(workspace, Histories(), View()), FORM, "", "", True)
    with pytest.raises(ValueError, match="A line of the list of names has 101 characters"):
        words_step._compare(look(), FORM, "", "x" * 101, True)
    job_dir = workspace.new_job_dir("look-alikes")
    photos = str(look().subject.photos_dir)
    Job("lookalikes", {"model": "mini", "class_word": "dog", "photos": photos}, submitted=1.0).write(job_dir)
    this_process = ProcessIdentity.of(os.getpid())
    ProcessRecord(this_process, worker=this_process).write(job_dir)
    events = EventWriter(job_dir)
    events.write("stage", name="probing", message="Drawing 'a photo of a pug dog' (3 of 6).")
    events.write("progress", step=2, num_steps=6)
    assert "Drawing 'a photo of a pug dog' (3 of 6)." in lookalikes_panel(look(), FORM).replace("&#39;", "'")
    with pytest.raises(ValueError, match="This is at work already"):
        words_step._compare(look(), FORM, "", "", True)
    events.write("stopped")
    words_step._find(look(), FORM, "", True)
    assert [kind for _, _, kind, _ in started] == ["tokens"]


def test_findings_are_shown_with_pictures_and_belong_to_their_class_and_photos(
    look: Callable[[], Page], workspace: Workspace
) -> None:
    before = tokens_panel(look(), FORM), lookalikes_panel(look(), FORM)
    job = found_tokens(workspace)
    found_lookalikes(workspace, look().subject)
    tokens, names = tokens_panel(look(), FORM), lookalikes_panel(look(), FORM)
    assert text_of(tokens).startswith("dog the class word alone, for comparison sks means something")
    assert "zwx means nothing because of zwx Take" in text_of(tokens)
    assert "several pieces" in tokens
    assert "&lt;b&gt;x" in tokens
    assert tokens.count(f"/media/jobs/{job.name}/images/a.png") == 2
    assert "Drawn like the plain class: zwx." in tokens
    assert "brown recommended why pictures 0.61 of 0.74 among your photos, words 0.40" in text_of(names)
    assert 'data-word="brown"' in names
    assert names.count("data-event") == 2  # the class word alone cannot be taken
    other = replace(FORM, class_word="cat")
    assert (tokens_panel(look(), other), lookalikes_panel(look(), other)) == before
    cat = choose_sample(workspace, "marmalade")
    elsewhere = Page(workspace, Histories(), View(subject_id=cat.name))
    assert lookalikes_panel(elsewhere, FORM) == before[1]


def test_word_that_is_taken_goes_into_the_subject_and_its_captions(
    look: Callable[[], Page], workspace: Workspace
) -> None:
    subject = look().subject
    words_step._take(look(), FORM, "sks")
    write_caption(subject.photos[0], "a photo of a sks dog on a beach")
    view, token = words_step._take(look(), FORM, "brown")
    assert (view.subject_id, token) == (subject.dir.name, "brown")
    renamed = look().subject
    assert renamed.prompt == "a photo of a brown dog"
    assert list(renamed.captions().values()) == ["a photo of a brown dog on a beach"]
    assert words_step._take(Page(workspace, Histories(), View()), FORM, "brown") == (View(), "sks")


def test_the_view_shows_pieces_captions_and_what_is_cut_off(look: Callable[[], Page]) -> None:
    shown = view_panel(look(), FORM)
    assert '<span class="is-own"><i>sks</i></span>' in shown
    assert text_of(shown).count("a photo of a sks dog") == 2 + 6
    write_caption(look().subject.photos[1], "a photo of a sks dog " + "and a cat " * 12)
    shown = text_of(view_panel(look(), FORM))
    assert "Photo 2: The tokenizer makes 42 pieces of the prompt, and the text encoder reads 30." in shown
    assert view_panel(look(), replace(FORM, class_word=" ")) == ""
    unknown = {**EXPERT_VALUES, "pretrained_model_name_or_path": "nobody/nowhere"}
    assert "comes with the model" in view_panel(look(), replace(FORM, experts=unknown))


@pytest.mark.browser
@pytest.mark.parametrize("width_px", [390, 1440])
def test_a_word_is_taken_in_the_browser(
    start_app: Callable[..., App], new_tab: Callable[..., Tab], workspace: Workspace, width_px: int
) -> None:
    subject = Subject.read(choose_sample(workspace, "biscuit"))
    found_tokens(workspace)
    found_lookalikes(workspace, subject)
    page = new_tab(f"{start_app().url}/?subject={subject.dir.name}&step=words", width_px)
    expect(page.locator("#words-view")).to_contain_text("“a photo of a sks dog”")
    expect(page.locator("#tokens li")).to_have_count(5)
    assert page.locator("#tokens img").first.evaluate("i => i.decode().then(() => i.naturalWidth)") == 128
    page.locator("#tokens [data-word=zwx]").click()
    expect(page.locator("#words-view")).to_contain_text("“a photo of a zwx dog”")
    expect(page.locator("#tokens [data-word=zwx]")).to_have_text("Taken")
    page.locator("#lookalikes [data-word=brown]").click()
    expect(page.locator("#words-view")).to_contain_text("All of it means something already.")
    assert page.evaluate("document.documentElement.scrollWidth") <= width_px
    page.reload()
    expect(page.locator("#lookalikes [data-word=brown]")).to_have_text("Taken")
    page.click("#to-settings")
    expect(page.locator("#plan")).to_contain_text("“a photo of a brown dog”")
    assert Subject.read(subject.dir).token == "brown"


def test_a_runs_words_stand_in_the_way_through_the_steps(workspace: Workspace) -> None:
    run_dir = record_run(workspace)
    page = Page(workspace, Histories(), View(run_id=run_dir.name, step="words"))
    assert page.view.step == "words"
    assert '<span class="is-own"><i>sks</i></span>' in view_panel(page, FORM)
