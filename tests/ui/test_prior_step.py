"""The step of the prior: what is drawn into which folder, and what the page says about it."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import gradio as gr
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from dreamspace.config import load_datasets, save_datasets
from dreamspace.config.sections import BASE_MODEL_SETTINGS
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.job import Job, ProcessRecord
from dreamspace.jobs.new_run import prior_folder
from dreamspace.jobs.process import ProcessIdentity
from dreamspace.jobs.workspace import Workspace
from dreamspace.ui import prior_step
from dreamspace.ui.changes import choose_sample
from dreamspace.ui.guide import Guide
from dreamspace.ui.history import Histories
from dreamspace.ui.media import class_image_url, media_router
from dreamspace.ui.page import Page, View, render
from dreamspace.ui.prior_panels import PRIORS, effect_panel, images_panel
from tests.ui.forms import EXPERT_VALUES, FORM, text_of
from tests.ui.recorded import record_run


@pytest.fixture
def look(workspace: Workspace) -> Callable[[], Page]:
    subject_dir = choose_sample(workspace, "biscuit")
    return lambda: Page(workspace, Histories(), View(subject_id=subject_dir.name, step="prior"))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What was started instead of a job."""
    calls: list[tuple] = []
    monkeypatch.setattr(prior_step, "start_job", lambda *arguments: calls.append(arguments))
    return calls


def draw_some(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (200, 200), (number, 90, 90)).save(folder / f"zz-drawn-{number}.png")
    return sorted(folder.iterdir())


def test_class_images_are_drawn_into_the_folder_that_the_training_reads(
    look: Callable[[], Page], workspace: Workspace, started: list[tuple]
) -> None:
    prior_step._draw(look(), FORM)
    experts = FORM.experts | {"base_model_precision": "int8-quanto"}
    own_prompts = replace(FORM, class_prompts="a dog\n\n  two   dogs \n", num_class_images=10)
    own_prompts = replace(own_prompts, experts=experts)
    prior_step._draw(look(), own_prompts)
    folders = [
        prior_folder(workspace, "mini", "dog"),
        prior_folder(workspace, "mini", "dog", ["a dog", "two dogs"]),
    ]
    same = {"model": "mini", "seed": 0}
    levels = [arguments.pop("model_settings") for _, _, _, arguments in started]
    assert [each["base_model_precision"] for each in levels] == ["no_change", "int8-quanto"]
    assert all(each.keys() == set(BASE_MODEL_SETTINGS) for each in levels)
    assert [arguments for _, _, _, arguments in started] == [
        same | {"prompts": ["a photo of a dog"], "count": 24, "out": str(folders[0])},
        same | {"prompts": ["a dog", "two dogs"], "count": 10, "out": str(folders[1])},
    ]
    assert folders[0] != folders[1]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"class_word": " "}, "class_word is empty"),
        ({"num_class_images": 0}, "The number of class images is 0"),
        ({"num_class_images": -1}, "num_class_images must be at least 0, got -1"),
        (
            {"class_prompts": "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567"},
            "The class prompts hold an access token",
        ),
        (
            {"experts": {**EXPERT_VALUES, "pretrained_model_name_or_path": "/etc"}},
            "In the app the base model is",
        ),
    ],
)
def test_what_cannot_be_drawn_is_said(
    look: Callable[[], Page], workspace: Workspace, started: list[tuple], changes: dict, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        prior_step._draw(look(), replace(FORM, **changes))
    assert started == []
    assert list(workspace.priors.iterdir()) == []


def test_the_same_images_are_not_drawn_twice_at_once(
    look: Callable[[], Page], workspace: Workspace, started: list[tuple]
) -> None:
    folder = prior_folder(workspace, "mini", "dog")
    job_dir = workspace.new_job_dir("class images")
    Job(kind="prior", arguments={"out": str(folder)}, submitted=1.0).write(job_dir)
    this_process = ProcessIdentity.of(os.getpid())
    ProcessRecord(this_process, worker=this_process).write(job_dir)
    with pytest.raises(ValueError, match=r"^These class images are being drawn already\."):
        prior_step._draw(look(), FORM)
    draw_some(folder, 4)
    events = EventWriter(job_dir)
    events.write("stage", name="prior", message="Drawing class images: 4 of 24.")
    events.write("progress", step=4, num_steps=24)
    for index in range(6):
        events.write(
            "preview", prompt="a photo of a dog", index=index, inference_step=5, num_inference_steps=20,
            path=f"previews/{index}-005.png",
        )  # fmt: skip
    shown = images_panel(look(), FORM)
    assert "Drawing class images: 4 of 24." in shown
    assert "width:17%" in shown
    assert re.findall(r"previews/(\d)-005\.png", shown) == ["4", "5"], (
        "those that are done are shown as they are"
    )
    assert 'data-event="stop_prior"' in shown


def test_the_images_of_the_folder_are_shown(look: Callable[[], Page], workspace: Workspace) -> None:
    assert "0 of 24 class images" in images_panel(look(), FORM)
    draw_some(prior_folder(workspace, "mini", "dog"), 10)
    shown = images_panel(look(), FORM)
    assert shown.count("<img") == 10
    assert "10 of 24 class images The rest is drawn when the training begins." in text_of(shown)
    assert "The first 8 are used." in images_panel(look(), replace(FORM, num_class_images=8))
    assert images_panel(look(), replace(FORM, prior="image-free")) == ""
    assert images_panel(look(), replace(FORM, class_word="")) == ""
    assert images_panel(look(), replace(FORM, class_prompts="a cat")).count("<img") == 0


@pytest.mark.parametrize(
    ("prior", "sentences"),
    [
        ("none", ["All 1600 pictures in the training show your subject."]),
        (
            "image-free",
            ["800 are your photos under the class word: 1 to 1", "adds about 9 s", "2 times the steps"],
        ),
        ("noise", ["800 are class images: 1 to 1", "adds about 16 s : 24 images to draw."]),
        ("base", ["adds about 25 s : 24 images to draw and the base model's own predictions."]),
    ],
)
def test_what_a_choice_means_is_said_with_figures(
    look: Callable[[], Page], prior: str, sentences: list[str]
) -> None:
    form = replace(FORM, prior=prior, experts=FORM.experts | {"held_out_photos": False})
    text = text_of(effect_panel(look(), form)).replace("&#39;", "'")
    for sentence in sentences:
        assert sentence in text


def test_a_photo_that_is_held_out_is_no_part_of_the_mixture(look: Callable[[], Page]) -> None:
    assert "816 show your subject" in text_of(effect_panel(look(), replace(FORM, prior="noise")))


def test_images_that_are_there_cost_no_time(look: Callable[[], Page], workspace: Workspace) -> None:
    draw_some(prior_folder(workspace, "mini", "dog"), 24)
    assert "It adds nothing to the time." in effect_panel(look(), replace(FORM, prior="noise"))


@pytest.mark.parametrize("chosen", PRIORS)
def test_the_dial_has_four_ways_with_a_sentence_each_and_advice(chosen: str) -> None:
    cards = render("prior_cards.html", priors=PRIORS, chosen=chosen)
    assert re.findall(r'data-prior="([^"]+)" aria-pressed="true"', cards) == [chosen]
    assert cards.count('data-event="choose_prior"') == len(PRIORS) == 4
    assert "Images that the model draws itself may serve better than real photos" in cards
    assert "a training without any may serve best" in cards


def test_class_photos_of_ones_own_come_first(
    look: Callable[[], Page], workspace: Workspace, tmp_path: Path
) -> None:
    folder = prior_folder(workspace, "mini", "dog")
    draw_some(folder, 2)
    uploaded = tmp_path / "up" / "mine.jpg"
    uploaded.parent.mkdir()
    Image.new("RGB", (300, 200), "green").save(uploaded)
    (tmp_path / "up" / "notes.txt").write_text("no picture")
    report = prior_step._add(look(), FORM, [uploaded, tmp_path / "up" / "notes.txt"])
    assert "1 file was left out" in report
    assert not uploaded.exists()
    names = [path.name for path in sorted(folder.iterdir())]
    assert len(names) == 3
    assert not names[0].startswith("zz-drawn-")
    experts = {**EXPERT_VALUES, "pretrained_model_name_or_path": str(tmp_path)}
    with pytest.raises(ValueError, match="In the app the base model is"):
        prior_step._add(look(), replace(FORM, experts=experts), [])


def test_a_run_shows_the_prior_that_it_was_trained_with(workspace: Workspace) -> None:
    run_dir = record_run(workspace, up_to=0, outcome="stopped")

    def shown() -> list[object]:
        with gr.Blocks():
            guide = Guide(workspace, gr.Textbox())
            prior_step.build(guide)
        page = guide.page(View(run_id=run_dir.name, step="prior").address)
        return [panel.update(page) for panel in guide._form]

    assert shown() == ["base", 24, "", 1.0]
    datasets = load_datasets(run_dir / "multidatabackend.json")
    changed = {"regularisation_target": "noise", "instance_prompt": ["a dog", "two dogs"]}
    save_datasets([datasets[0], datasets[1].model_copy(update=changed)], run_dir / "multidatabackend.json")
    assert shown() == ["noise", 24, "a dog\ntwo dogs", 1.0]


def test_news_come_with_every_image(look: Callable[[], Page], workspace: Workspace) -> None:
    before = prior_step._news(look())
    assert prior_step._news(look()) == before
    draw_some(prior_folder(workspace, "mini", "dog"), 1)
    assert prior_step._news(look()) != before


@pytest.fixture
def client(workspace: Workspace) -> TestClient:
    app = FastAPI()
    app.include_router(media_router(workspace))
    return TestClient(app)


def test_class_images_are_served_small(client: TestClient, workspace: Workspace) -> None:
    [file] = draw_some(prior_folder(workspace, "owner/model", "größer Hund"), 1)
    answer = client.get(class_image_url(file))
    assert answer.status_code == 200
    assert Image.open(BytesIO(answer.content)).size == (160, 160)


@pytest.mark.parametrize(
    "path",
    [
        "mini/dog/zz-drawn-0.png",
        "mini/dog/zz-drawn-0.png?w=5000",
        "mini/dog/notes.txt?w=160",
        "mini/dog/..%2f..%2fsecret.png?w=160",
        "mini/%2e%2e/secret.png?w=160",
        "%2e%2e/priors/secret.png?w=160",
        "mini/link/secret.png?w=160",
        "mini/.hidden/secret.png?w=160",
        "mini/dog/link.png?w=160",
        "mini/cat/zz-drawn-0.png?w=160",
    ],
)
def test_anything_else_of_the_priors_does_not_exist(
    client: TestClient, workspace: Workspace, tmp_path: Path, path: str
) -> None:
    folder = workspace.priors / "mini" / "dog"
    draw_some(folder, 1)
    (folder / "notes.txt").write_text("secret")
    for secret in (tmp_path / "private", workspace.priors, folder.with_name(".hidden")):
        secret.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(secret / "secret.png")
    folder.with_name("link").symlink_to(tmp_path / "private")
    (folder / "link.png").symlink_to(tmp_path / "private" / "secret.png")
    assert client.get("/media/priors/mini/dog/zz-drawn-0.png?w=160").status_code == 200
    assert client.get(f"/media/priors/{path}").status_code in (404, 422)


def test_a_number_that_cannot_be_is_said_beside_what_it_means(look: Callable[[], Page]) -> None:
    shown = prior_step._described(look(), replace(FORM, num_class_images=-3))
    assert any("num_class_images must be at least 0, got -3" in str(panel) for panel in shown)
