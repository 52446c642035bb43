"""Addresses, and what the panels say about runs of every state."""

import re
import shutil
from collections.abc import Callable
from types import SimpleNamespace

import gradio as gr
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from dreamspace.config import RunConfig, load_datasets, parse_run_config, save_datasets
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.job import Job, ProcessRecord
from dreamspace.jobs.process import ProcessIdentity
from dreamspace.jobs.workspace import Workspace
from dreamspace.ui import overview, photos_step, publish_step, result_step, train_step
from dreamspace.ui.downloads import downloads_router
from dreamspace.ui.guide import Guide
from dreamspace.ui.media import media_router
from dreamspace.ui.page import Page, View, duration, render
from dreamspace.ui.take_away import download_panel
from tests.ui.recorded import record_run


@pytest.mark.parametrize(
    "view",
    [View(), View("sks-dog-1a2b3c", "", "result", 200), View(subject_id="ümläut & more", step="settings")],
)
def test_a_view_comes_back_from_its_address(view: View) -> None:
    assert View.parse(view.address) == view
    assert View.parse("?" + view.address) == view


def test_nonsense_in_an_address_is_ignored() -> None:
    assert View.parse("step=fly&checkpoint=-3&__theme=dark&run=") == View()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (40, "40 s"), (95, "2 min"), (3600, "60 min"), (4800, "80 min"), (5500, "1 h 32 min")],
)
def test_durations_are_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_steps_open_as_the_run_goes_on(workspace: Workspace, look: Callable[[View], Page]) -> None:
    def reachable(view: View) -> list[str]:
        return [step for step, can_be in look(view).reachable.items() if can_be]

    assert reachable(View()) == ["photos"]
    opened = ["photos", "masks", "prior", "words", "settings"]
    fresh = record_run(workspace, outcome="running", up_to=0)
    assert reachable(View(run_id=fresh.name)) == [*opened, "train"]
    sampled = record_run(workspace, outcome="stopped", up_to=100)
    assert reachable(View(run_id=sampled.name)) == [*opened, "train", "result"]
    done = record_run(workspace, outcome="done")
    assert reachable(View(run_id=done.name)) == [*opened, "train", "result", "publish"]
    assert look(View(run_id=fresh.name, step="publish")).view.step == "train"


def test_what_an_address_names_and_is_gone_is_said(look: Callable[[View], Page]) -> None:
    page = look(View(run_id="<b>old</b>", step="train"))
    assert page.view == View()
    assert "&lt;b&gt;old&lt;/b&gt;" in overview._steps(page)


@pytest.mark.parametrize(
    ("outcome", "up_to", "words"),
    [
        ("running", 150, ["Training", "150", "of 400 steps", "48 s", "5.2"]),
        ("done", 400, ["It is done", "loaded again"]),
        ("stopped", 200, ["Stopped", "Stopped at step 200.", "The newest checkpoint is of step 200."]),
        ("failed", 100, ["It could not go on", "The disk has 3 MB free and a checkpoint needs 40 MB."]),
        ("crashed", 250, ["It crashed", "The process died at step 250 without a word", "Resume it"]),
    ],
)
def test_the_state_of_a_run_is_in_words(
    workspace: Workspace, look: Callable[[View], Page], outcome: str, up_to: int, words: list[str]
) -> None:
    run_dir = record_run(workspace, outcome=outcome, up_to=up_to)
    page = look(View(run_id=run_dir.name, step="train"))
    text = " ".join(re.sub(r"<[^>]+>", " ", train_step._state(page)).split())
    for word in words:
        assert word in text
    assert f"is-{outcome}" in overview._steps(page) + str(overview.cards_of(page)) + train_step._state(page)


@pytest.mark.parametrize(
    ("outcome", "visible"),
    [
        ("running", {"stop", "sample-now", "save-now"}),
        ("done", {"to-result", "again"}),
        ("stopped", {"resume", "again"}),
        ("crashed", {"resume", "again"}),
        ("failed", {"resume", "again"}),
    ],
)
def test_the_buttons_fit_the_state(workspace: Workspace, outcome: str, visible: set[str]) -> None:
    run_dir = record_run(workspace, outcome=outcome, up_to=20)
    with gr.Blocks():
        guide = Guide(workspace, gr.Textbox())
        train_step.build(guide)
    page = guide.page(View(run_id=run_dir.name, step="train").address)
    buttons = [panel for panel in guide._panels if isinstance(panel.component, gr.Button)]
    assert {panel.component.elem_id for panel in buttons if panel.update(page)["visible"]} == visible


def test_a_waiting_run_says_whom_it_waits_for(workspace: Workspace, look: Callable[[View], Page]) -> None:
    first = record_run(workspace, "comet", outcome="running", up_to=20)
    second = record_run(workspace, "biscuit", outcome="running", up_to=0)
    (second / "events.jsonl").unlink()
    alive = ProcessRecord.read(first).supervisor
    ProcessRecord(alive, waits_for=(first.name,)).write(second)
    page = look(View(run_id=second.name, step="train"))
    assert page.run.status.status == "queued"
    state = train_step._state(page)
    assert "Waiting for its turn" in state
    assert f'It waits for <a href="?run={first.name}&amp;step=train">sks backpack</a>' in state
    assert [card.status_word for card in overview.cards_of(page)] == ["waiting", "training"]


def test_images_by_checkpoint_begin_with_the_base_model(
    workspace: Workspace, look: Callable[[View], Page]
) -> None:
    run_dir = record_run(workspace, outcome="running", up_to=300)
    page = look(View(run_id=run_dir.name, step="train"))
    grid = train_step._grid(page)
    assert re.findall(r'<th scope="col">(.*?)</th>', grid) == [
        "",
        "before",
        "step 100",
        "step 200",
        "step 300",
    ]
    assert grid.count("<img") == 4 * 4 - 2
    live = train_step._live(page)
    assert live.count("is-coming") == 2
    assert "width:50%" in live


def test_the_result_compares_the_chosen_checkpoint(
    workspace: Workspace, look: Callable[[View], Page]
) -> None:
    run_dir = record_run(workspace)
    last = result_step._comparison(look(View(run_id=run_dir.name, step="result")))
    assert last.count("data-compare") == 4
    assert "validation/step-000400/0.png" in last
    assert last.count("validation/step-000000/") == 4
    page = look(View(run_id=run_dir.name, step="result", checkpoint=200))
    assert "validation/step-000200/0.png" in result_step._comparison(page)
    assert result_step.checkpoint_to_use(page, page.run) == 200
    assert f"/download/{run_dir.name}/step-000200" in download_panel(page, 200)
    page = look(View(run_id=run_dir.name, step="result", checkpoint=123))
    assert result_step.chosen_step(page) == 400
    assert result_step.checkpoint_to_use(page, page.run) is None


def test_averaged_images_and_weights_stand_beside_the_trained_ones(
    workspace: Workspace, look: Callable[[View], Page]
) -> None:
    run_dir = record_run(workspace)
    view = View(run_id=run_dir.name, step="result")
    assert "averaged" not in "".join(
        [result_step._comparison(look(view)), download_panel(look(view), 400), train_step._grid(look(view))]
    )
    validation = run_dir / "validation" / "step-000400"
    shutil.copy(validation / "0.png", validation / "0-ema.png")
    prompt = look(view).run_history.shots[0].prompt
    EventWriter(run_dir).write(
        "sample", step=400, prompt=prompt, seed=42, weights="ema", path="validation/step-000400/0-ema.png"
    )
    (run_dir / "adapter-ema").mkdir()
    (run_dir / "adapter-ema" / "pytorch_lora_weights.safetensors").write_bytes(b"averaged")
    page = look(view)
    comparison, grid = result_step._comparison(page), train_step._grid(page)
    tags = re.findall(r'/(\d[^/"]*\.png)[^"]*" alt="After|is-right">(\w+)<', comparison)
    assert ["".join(tag) for tag in tags[:4]] == ["0.png", "after", "0-ema.png", "averaged"]
    assert comparison.count("data-compare") == 5
    assert grid.count("<img") == 4 * 5 + 1
    assert grid.count(">averaged<") == 1
    assert "averaged" in train_step._live(page)
    assert publish_step._preview(page).count("<img") == 4
    assert "0-ema" not in publish_step._preview(page)
    averaged = re.findall(r'href="([^"]+)"[^>]*>Averaged<', download_panel(page, 400))[0]
    client = TestClient(FastAPI())
    client.app.include_router(media_router(workspace))
    client.app.include_router(downloads_router(workspace))
    assert client.get(averaged).content == b"averaged"
    [url] = re.findall(r'src="([^"]+0-ema\.png[^"]*)"', comparison)
    assert client.get(url).headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("settings", "titles"),
    [
        ({}, ["LoRA", "LoRA for ComfyUI, A1111 and Forge", "The whole model"]),
        ({"use_dora": True}, ["LoRA", "The whole model"]),
        ({"lora_type": "lycoris"}, ["LyCORIS", "The whole model"]),
        ({"lora_type": "lycoris", "lycoris_config": {"dora_wd": True}}, ["LyCORIS"]),
        ({"model_type": "full"}, ["The trained weights", "The whole model"]),
    ],
)
def test_each_kind_of_training_is_offered_in_the_formats_that_it_has(
    workspace: Workspace, look: Callable[[View], Page], settings: dict[str, object], titles: list[str]
) -> None:
    run_dir = record_run(workspace)
    config = parse_run_config({**RunConfig.load(run_dir / "config.json").model_dump(), **settings})
    config.save(run_dir / "config.json")
    panel = download_panel(look(View(run_id=run_dir.name)), 200)
    shown = re.findall("<strong>(.*?)</strong>", panel)
    assert shown == [*titles, "Its settings, for SimpleTuner"]
    assert panel.lower().count("step 200") == len(titles)
    assert ("It takes about 54 MB." in panel) == ("The whole model" in titles)


def test_images_are_made_only_with_a_step_that_was_saved(
    workspace: Workspace, look: Callable[[View], Page]
) -> None:
    run_dir = record_run(workspace, outcome="running", up_to=200)
    events = EventWriter(run_dir)
    path = "validation/step-000200/0.png"
    events.write("sample", step=250, prompt="a photo of a sks dog", seed=42, path=path, weights="trained")
    refusal = r"Step 250 was drawn but not saved\. Choose one of the saved steps in Result: 100, 200\."
    view = View(run_id=run_dir.name, step="result")
    assert result_step.chosen_step(look(view)) == 250
    with pytest.raises(ValueError, match=refusal):
        result_step.checkpoint_to_use(look(view), look(view).run)
    (run_dir / "adapter").mkdir()
    (run_dir / "adapter" / "pytorch_lora_weights.safetensors").write_bytes(b"final adapter")
    with pytest.raises(ValueError, match=refusal):
        result_step.checkpoint_to_use(look(view), look(view).run)
    page = look(View(run_id=run_dir.name, step="result", checkpoint=100))
    assert re.findall(r'data-checkpoint="(\d+)"', result_step._choice(page)) == ["100", "200", "250"]
    assert result_step.checkpoint_to_use(page, page.run) == 100


def test_a_saved_step_without_images_can_be_chosen(
    workspace: Workspace, look: Callable[[View], Page]
) -> None:
    run_dir = record_run(workspace)
    (run_dir / "checkpoints" / "step-000200").rename(run_dir / "checkpoints" / "step-000250")
    page = look(View(run_id=run_dir.name, step="result", checkpoint=250))
    assert result_step.checkpoint_to_use(page, page.run) == 250
    assert "No images were drawn at step 250." in result_step._comparison(page)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_cannot_be_is_refused(
    workspace: Workspace, look: Callable[[View], Page], seed: int
) -> None:
    page = look(View(run_id=record_run(workspace).name, step="result"))
    with pytest.raises(ValueError, match=rf"^The seed must be 0 to 4294967295, got {seed}\. Choose"):
        result_step._make(page, {}, "a dog", seed, 20, 5.0)
    assert workspace.list_jobs() == []


def test_the_seed_after_the_last_is_the_first(
    workspace: Workspace, look: Callable[[View], Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_step, "start_job", lambda *arguments: None)
    page = look(View(run_id=record_run(workspace).name, step="result"))
    assert [result_step._make(page, {}, "a dog", seed, 20, 5.0)[1] for seed in (7, 2**32 - 1)] == [8, 0]


def test_a_run_without_words_is_called_by_the_prompt_of_its_photos(
    workspace: Workspace, look: Callable[[View], Page]
) -> None:
    run_dir = record_run(workspace)
    page = look(View(run_id=run_dir.name, step="result"))
    assert result_step._proposed_prompts(page).startswith("a photo of a sks dog on a beach\n")
    config = RunConfig.load(run_dir / "config.json")
    config.model_copy(update={"token": None, "class_word": None}).save(run_dir / "config.json")
    datasets = load_datasets(run_dir / "multidatabackend.json")
    datasets[0] = datasets[0].model_copy(update={"instance_prompt": "my dog Biscuit"})
    save_datasets(datasets, run_dir / "multidatabackend.json")
    page = look(View(run_id=run_dir.name, step="result"))
    assert result_step._proposed_prompts(page) == "my dog Biscuit on a beach\nmy dog Biscuit in the snow"
    assert "begin your prompts with “my dog Biscuit”" in download_panel(page, 400)
    assert "Begin with “my dog Biscuit”" in result_step._made(page)


def test_the_phrase_marks_the_token() -> None:
    assert "“a photo of a <mark>sks</mark> dog”" in photos_step._phrase(" sks ", "dog")
    assert "“a photo of a dog”" in photos_step._phrase("", " dog")
    assert "<mark>&lt;b&gt;</mark>" in photos_step._phrase("<b>", "dog")
    assert photos_step._phrase("sks", " ") == ""


def test_the_jobs_of_a_run_are_looked_for_once_a_page(
    workspace: Workspace, look: Callable[[View], Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = record_run(workspace)
    job_dirs = {}
    for kind in ("generate", "publish"):
        job_dirs[kind] = workspace.new_job_dir(kind)
        Job(kind=kind, arguments={"run_dir": str(run_dir)}).write(job_dirs[kind])
    page, scans = look(View(run_id=run_dir.name)), []
    list_jobs = workspace.list_jobs
    monkeypatch.setattr(workspace, "list_jobs", lambda: scans.append(1) or list_jobs())
    for _ in range(3):
        assert {kind: page.jobs(kind) for kind in job_dirs} == {k: [d] for k, d in job_dirs.items()}
    assert page.jobs("evaluate") == []
    assert len(scans) == 1


@pytest.mark.parametrize(
    ("typed", "lends_token", "used"),
    [
        ("", True, "hf_OfTheMachine"),
        (" hf_Typed1234 ", True, "hf_Typed1234"),
        ("hf_Typed1234", False, "hf_Typed1234"),
    ],
)
def test_publishing_takes_the_typed_token_else_the_one_that_is_lent(
    workspace: Workspace, look: Callable[[View], Page], monkeypatch: pytest.MonkeyPatch,
    typed: str, lends_token: bool, used: str,
) -> None:  # fmt: skip
    submitted = []
    monkeypatch.setenv("HF_TOKEN", "hf_OfTheMachine")
    monkeypatch.setattr(publish_step, "start_job", lambda *arguments, **options: submitted.append(options))
    page = look(View(run_id=record_run(workspace).name, step="publish"))
    publish_step._publish(page, {}, "my-dog", True, typed, lends_token=lends_token)
    assert [options["secrets"] for options in submitted] == [{"HF_TOKEN": used}]


def test_an_app_that_others_reach_does_not_publish_with_the_token_of_its_machine(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_OfTheMachine")
    monkeypatch.setattr(publish_step, "start_job", lambda *_, **__: pytest.fail("published"))
    with gr.Blocks() as blocks:
        guide = Guide(workspace, gr.Textbox())
        publish_step.build(guide, lends_token=False)
    assert "this machine" not in str(blocks.config)
    page = guide.page(View(run_id=record_run(workspace).name, step="publish").address)
    with pytest.raises(ValueError, match="The access token is missing, and an app that other machines can"):
        guide._links[0].action(page, {}, "my-dog", True, "  ")


def test_no_word_of_a_user_or_a_worker_becomes_markup(
    workspace: Workspace, look: Callable[[View], Page]
) -> None:
    run_dir = record_run(workspace, up_to=100)
    evil = "<img src=x onerror=alert(1)>${alert(2)}\"'"
    events = EventWriter(run_dir)
    events.write("warning", message=evil, hint=evil)
    for step in (0, 100):
        path = "validation/step-000100/0.png"
        events.write("sample", step=step, prompt=evil, seed=1, path=path, weights="trained")
    events.write(
        "preview", step=100, prompt=evil, index=9, inference_step=1, num_inference_steps=2, path=evil
    )
    (run_dir / "log.txt").write_text(evil)
    job_dir = workspace.new_job_dir("publish")
    arguments = {"run_dir": str(run_dir)}
    Job(kind="publish", arguments=arguments, created=1.0, submitted=1.0).write(job_dir)
    EventWriter(job_dir).write("done", step=1, path=f"javascript:{evil}")
    page = look(View(run_id=run_dir.name, step="result"))
    panels = [
        train_step._state, train_step._live, train_step._grid, train_step._log,
        result_step._comparison, publish_step._preview, publish_step._state,
    ]  # fmt: skip
    html = "".join(panel(page) for panel in panels)
    assert "&lt;img src=x" in html
    assert "<img src=x" not in html
    assert "javascript:" not in html


def test_a_run_is_resumed_from_the_list(
    workspace: Workspace, look: Callable[[View], Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [record_run(workspace, "comet", outcome, up_to=20) for outcome in ("stopped", "running")]
    listed = render("runs.html", cards=overview.cards_of(look(View())))
    assert re.findall(r'data-event="resume_entry" data-id="([^"]+)"', listed) == [runs[0].name]
    resumed = []
    monkeypatch.setattr(overview, "resume_run", resumed.append)
    view = overview._resume(look(View()), {"id": runs[0].name})
    assert resumed == [runs[0]]
    assert view == View(run_id=runs[0].name, step="train")


def test_only_panels_that_changed_are_sent(workspace: Workspace) -> None:
    with gr.Blocks():
        guide = Guide(workspace, gr.Textbox())
        now = {"a": "1", "b": "1"}
        guide.html(lambda page: now["a"])
        guide.html(lambda page: now["b"])
        first, second, digests = guide._changes(guide.page(""), "")
        assert (first, second) == ("1", "1")
        assert guide._changes(guide.page(""), digests) == gr.skip()
        now["b"] = "2"
        first, second, changed = guide._changes(guide.page(""), digests)
        assert (first, second) == (gr.skip(), "2")
        assert guide._changes(guide.page(""), changed) == gr.skip()
        assert guide._changes(guide.page(""), "made up") == ("1", "2", changed)


def test_a_value_error_of_an_action_is_shown_unchanged(workspace: Workspace) -> None:
    def act(page: Page, clicked: dict) -> View:
        raise ValueError("steps must be at least 1, got 0. Choose more.")

    with gr.Blocks():
        guide = Guide(workspace, gr.Textbox())
    with pytest.raises(gr.Error) as error:
        guide._handler(act)("", SimpleNamespace(_data=None))
    assert error.value.message == "steps must be at least 1, got 0. Choose more."


def test_a_dead_worker_is_noticed_without_any_event(
    workspace: Workspace, look: Callable[[View], Page]
) -> None:
    run_dir = record_run(workspace, outcome="running", up_to=20)
    view = View(run_id=run_dir.name, step="train")
    assert look(view).run.status.status == "running"
    gone = ProcessIdentity(pid=2**22 + 1, create_time=1.0, boot_time=0.0)
    ProcessRecord(gone, worker=gone).write(run_dir)
    assert look(view).run.status.status == "crashed"
