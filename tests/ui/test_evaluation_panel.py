"""Scores while a run trains, and the recommendation in its result, from what lies on the disk."""

import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from dreamspace.config import RunConfig
from dreamspace.files import read_json, write_json
from dreamspace.jobs.control import consume_control
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.job import Ended, Job, ProcessRecord
from dreamspace.jobs.process import ProcessIdentity
from dreamspace.jobs.workspace import Workspace
from dreamspace.ui import evaluation_panel, result_step, train_step
from dreamspace.ui.media import media_router, report_url
from dreamspace.ui.page import Page, View
from tests.ui.forms import text_of
from tests.ui.recorded import record_run

Look = Callable[[View], Page]
LEAKS = {"class": {"likeness": 0.45, "drift": 0.2}, "empty": {"likeness": 0.3, "drift": 0.05}}
FIGURES = {"clip_mean": 0.3, "clip_i": 0.6, "dino": None, "spread": 0.1, "leaks": LEAKS}
BASE_LEAKS = {"class": {"likeness": 0.4, "drift": 0.0}, "empty": {"likeness": 0.31, "drift": 0.0}}


def candidate(step: int, **values: float) -> dict:
    name = f"step-{step:06d}"
    measured = {"fidelity": 0.5, "adherence": 0.9, "leak": 0.1, "copying": 0.0, "contrast": 1.0, "score": 0.4}
    return {
        "name": f"step {step}", "folder": name, "step": step, "weights": "trained",
        "path": f"checkpoints/{name}", "figures": FIGURES, "is_on_front": True, **measured, **values,
    }  # fmt: skip


def write_outcome(run_dir: Path) -> None:
    """An evaluation of two checkpoints, two prompts and two that should not show it, with its images."""
    prompts = ["a photo of a sks dog at night", "a photo of a sks dog in the snow"]
    for folder in ("base", "step-000200", "step-000400"):
        for index in range(4):
            path = run_dir / "evaluation" / folder / f"{index}-0.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64), (90, 60 * index, 120)).save(path)
    for strength in (0.5, 1.0, 1.5):
        for index in range(2):
            path = run_dir / "evaluation" / "step-000200" / f"strength-{strength:g}-{index}.jpg"
            Image.new("RGB", (64, 64), (int(150 * strength), 60 * index, 120)).save(path)
    (run_dir / "evaluation.html").write_text("<!doctype html>the report")
    outcome = {
        "best": "step-000200", "reason": "Step 200 is like the <photos>. After it nothing changes.",
        "warnings": ["Overfit from step 400 on."], "next_steps": ["Train fewer steps."],
        "candidates": [candidate(200), candidate(400, fidelity=0.4, score=0.3)],
        "base": FIGURES | {"clip_i": 0.4, "leaks": BASE_LEAKS}, "seeds": [0],
        "clip": "mini's own CLIP", "likeness": "CLIP-I", "strengths": [0.5, 1.0, 1.5],
        "prompts": prompts, "all_prompts": [*prompts, "a photo of a dog", ""],
        "leak_prompts": {"class": "a photo of a dog", "empty": ""},
    }  # fmt: skip
    write_json(run_dir / "evaluation.json", outcome)


def test_scores_are_curves_that_say_how_to_read_them(workspace: Workspace, look: Look):
    run_dir = record_run(workspace)
    view = View(run_id=run_dir.name, step="train")
    assert not str(evaluation_panel._scores(look(view))).strip()
    events = EventWriter(run_dir)
    for step, score in ((0, 0.31), (100, 0.29), (200, 0.25)):
        by_prompt = {"a photo of a sks dog": score}
        events.write(
            "clip_score", step=step, weights="trained", mean=score, min=0.2, max=0.4, by_prompt=by_prompt
        )
        events.write("eval_loss", step=step, loss=score / 2, by_timestep=[[1, 0.1]], dataset="subject")
        events.write("fidelity", step=step, weights="trained", clip_i=1 - score, evidence="weak")
    shown = str(evaluation_panel._scores(look(view)))
    for words in ("CLIP score", "0.250", "Eval loss", "0.125", "Likeness (CLIP-I)", "0.750", "Weak evidence"):
        assert words in shown
    assert "CLIP is mini’s own here" in shown
    assert shown.count("<circle") == 9
    assert "between 0.250 and 0.310" in shown


def test_each_weights_and_each_dataset_have_a_line_of_their_own(workspace: Workspace, look: Look):
    run_dir = record_run(workspace)
    events, by_prompt = EventWriter(run_dir), {}
    for step, weights, score in (
        (0, "base", 0.5),
        (100, "trained", 0.4),
        (100, "ema", 0.45),
        (200, "ema", 0.3),
    ):
        figures = {"mean": score, "min": score, "max": score, "by_prompt": by_prompt}
        events.write("clip_score", step=step, weights=weights, **figures)
        likeness = {"clip_i": 0.111, "dino": score}
        events.write("fidelity", step=step, weights=weights, evidence="held_out", **likeness)
    for step in (100, 200):
        for dataset, loss in (("red", 0.7), ("blue", 0.2)):
            events.write("eval_loss", step=step, loss=loss, by_timestep=[], dataset=dataset)
    shown = str(evaluation_panel._scores(look(View(run_id=run_dir.name, step="train"))))
    clip, fidelity, eval_loss = shown.split("<figure>")[1:]
    assert clip.count("<polyline") == fidelity.count("<polyline") == eval_loss.count("<polyline") == 2
    assert clip.count("is-averaged") == 1
    assert re.findall(r"<span>(\w+) <b>([\d.]+)<", clip) == [("plain", "0.400"), ("averaged", "0.300")]
    assert re.findall(r"<span>(\w+) <b>([\d.]+)<", eval_loss) == [("red", "0.700"), ("blue", "0.200")]
    assert re.findall('points="([^"]+)"', eval_loss) == ["75.0,0.0 150.0,0.0", "75.0,90.0 150.0,90.0"]
    assert "0.111" not in fidelity
    assert "Likeness (DINO)" in fidelity
    assert "Dashed" in shown


def test_a_run_that_draws_only_its_average_has_a_dashed_line_from_the_base_model(
    workspace: Workspace, look: Look
):
    run_dir = record_run(workspace)
    for step, weights in ((0, "base"), (100, "ema")):
        figures = {"mean": 0.3, "min": 0.3, "max": 0.3, "by_prompt": {}}
        EventWriter(run_dir).write("clip_score", step=step, weights=weights, **figures)
    shown = str(evaluation_panel._scores(look(View(run_id=run_dir.name, step="train"))))
    assert shown.count("<polyline") == shown.count("is-averaged") == 1
    assert shown.count("<circle") == 2


def test_scores_of_a_resumed_run_replace_what_came_after(workspace: Workspace, look: Look):
    run_dir = record_run(workspace)
    events = EventWriter(run_dir)
    for step in (100, 150, 200, 120):
        for dataset in ("red", "blue"):
            events.write("eval_loss", step=step, loss=0.1, by_timestep=[], dataset=dataset)
    scores = look(View(run_id=run_dir.name)).run_history.scores["eval_loss"]
    assert list(scores) == [(100, "red"), (100, "blue"), (120, "red"), (120, "blue")]


def test_what_is_held_out_is_named(workspace: Workspace, look: Look):
    run_dir = record_run(workspace)
    mixture = {"datasets": {"subject": 1.0}, "num_instances": 5, "num_prior": 0}
    EventWriter(run_dir).write("mixture", **mixture, held_out=["biscuit-4.png"])
    shown = evaluation_panel._scores(look(View(run_id=run_dir.name, step="train")))
    assert "1 photo is held out to judge by, never trained on: biscuit-4.png." in shown


def test_the_result_says_which_checkpoint_to_take_and_shows_all(workspace: Workspace, look: Look):
    run_dir = record_run(workspace)
    write_outcome(run_dir)
    page = look(View(run_id=run_dir.name, step="result"))
    shown = str(evaluation_panel._verdict(page))
    for words in ("Take step 200.", "&lt;photos&gt;", "Overfit from step 400", "Train fewer steps."):
        assert words in shown
    assert shown.count("<svg") == 2
    every, strengths, leaks = shown.split("ds-verdict-grid")[1:]
    assert every.count("<img") == 3 * 2
    assert re.findall(r"strength-([\d.]+)-(\d)\.jpg\?[^&]*&amp;w=160", strengths) == [
        (strength, index) for strength in ("0.5", "1", "1.5") for index in "01"
    ]
    assert re.findall(r"evaluation/([\w-]+)/(\d)-0\.jpg\?[^&]*&amp;w=160", leaks) == [
        (folder, index) for folder in ("base", "step-000200") for index in "23"
    ]
    assert "Obedience is judged by mini&#39;s own CLIP, likeness by the same (CLIP-I)." in shown
    assert ">likeness (CLIP-I)<" in shown
    assert "Compare again" in shown
    for step in (100, 300):
        shutil.rmtree(run_dir / "checkpoints" / f"step-{step:06d}")
    page = look(View(run_id=run_dir.name, step="result"))
    assert not evaluation_panel._can_be_evaluated(page)
    assert "Compare again" not in evaluation_panel._verdict(page)


def test_the_leak_test_is_a_table(workspace: Workspace, look: Look):
    run_dir = record_run(workspace)
    write_outcome(run_dir)
    shown = str(evaluation_panel._verdict(look(View(run_id=run_dir.name, step="result"))))
    table = shown[shown.index("ds-leak-table") :]
    assert text_of(table[table.index("<tr>") : table.index("</table>")]) == (
        "step 200, against the base model gain in likeness share drift "
        "images of the class alone a photo of a dog +0.050 25% 0.200 "
        "images without a prompt -0.010 0% 0.050"
    )


def test_what_has_no_strength_has_no_grid_of_strengths(workspace: Workspace, look: Look):
    run_dir = record_run(workspace)
    write_outcome(run_dir)
    outcome = read_json(run_dir / "evaluation.json")
    write_json(run_dir / "evaluation.json", outcome | {"strengths": [1.0], "likeness": "DINO"})
    shown = str(evaluation_panel._verdict(look(View(run_id=run_dir.name, step="result"))))
    assert "Images by strength" not in shown
    assert "likeness by DINO." in shown


def test_an_outcome_without_its_report_links_to_none_and_can_be_made_again(workspace: Workspace, look: Look):
    run_dir = record_run(workspace)
    write_outcome(run_dir)
    for step in (100, 300):
        shutil.rmtree(run_dir / "checkpoints" / f"step-{step:06d}")
    view = View(run_id=run_dir.name, step="result")
    assert "the whole report" in evaluation_panel._verdict(look(view))
    assert not evaluation_panel._can_be_evaluated(look(view))
    (run_dir / "evaluation.html").unlink()
    (run_dir / "evaluation.html").mkdir()
    assert "the whole report" not in evaluation_panel._verdict(look(view))
    assert evaluation_panel._can_be_evaluated(look(view))


def test_checkpoints_that_were_saved_after_the_evaluation_can_be_compared_too(
    workspace: Workspace, look: Look
):
    run_dir = record_run(workspace)
    write_outcome(run_dir)
    page = look(View(run_id=run_dir.name, step="result"))
    assert evaluation_panel._missing(page) == [100, 300]
    assert evaluation_panel._can_be_evaluated(page)


def test_the_recommended_checkpoint_is_marked(workspace: Workspace, look: Look):
    run_dir = record_run(workspace)
    view = View(run_id=run_dir.name, step="result")
    assert "recommended" not in result_step._choice(look(view))
    write_outcome(run_dir)
    assert ">200 (recommended)<" in result_step._choice(look(view))
    outcome = read_json(run_dir / "evaluation.json")
    outcome["candidates"][0]["weights"] = "ema"
    write_json(run_dir / "evaluation.json", outcome)
    assert ">200 (recommended, averaged)<" in result_step._choice(look(view))


def test_a_checkpoint_without_validation_images_is_shown_by_those_it_was_judged_by(
    workspace: Workspace, look: Look
):
    run_dir = record_run(workspace)
    write_outcome(run_dir)
    view = View(run_id=run_dir.name, step="result")
    assert "/validation/" in result_step._comparison(look(view))
    log = run_dir / "events.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("".join(f"{line}\n" for line in lines if '"kind":"sample"' not in line))
    shown = result_step._comparison(look(view))
    assert shown.count("/evaluation/base/") == shown.count("/evaluation/step-000200/") == 2
    assert "a photo of a sks dog in the snow<small>seed 0" in shown
    assert "No images were drawn at step 300" in result_step._comparison(look(replace(view, checkpoint=300)))


@pytest.mark.parametrize("has_outcome", [False, True])
def test_an_evaluation_at_work_says_how_far_it_is_and_can_be_stopped(
    workspace: Workspace, look: Look, has_outcome: bool
):
    run_dir = record_run(workspace)
    if has_outcome:
        write_outcome(run_dir)
    job_dir = workspace.new_job_dir("evaluate sks dog")
    Job(kind="evaluate", arguments={"run_dir": str(run_dir)}, submitted=time.time()).write(job_dir)
    alive = ProcessIdentity.of(os.getpid())
    ProcessRecord(alive, worker=alive).write(job_dir)
    EventWriter(job_dir).write("stage", name="evaluating", message="Evaluating step 100: 4 of 24 images.")
    view = View(run_id=run_dir.name, step="result")
    assert "Evaluating step 100: 4 of 24 images." in evaluation_panel._verdict(look(view))
    assert not evaluation_panel._can_be_evaluated(look(view))
    evaluation_panel._stop(look(view), {})
    assert (job_dir / "control" / "stop").exists()
    assert 'data-event="stop_evaluation" disabled' in evaluation_panel._verdict(look(view))
    failed = {"error": "ValueError", "message": "There is no CLIP.", "hint": "Name one.", "traceback": ""}
    EventWriter(job_dir).write("failed", **failed)
    Ended(exit_status=2, signal=None, time=time.time(), reason="exited").write(job_dir)
    assert "There is no CLIP. Name one." in evaluation_panel._verdict(look(view))
    assert evaluation_panel._can_be_evaluated(look(view))


def test_the_recommended_checkpoint_is_the_one_that_is_shown_until_another_is_chosen(
    workspace: Workspace, look: Look
):
    run_dir = record_run(workspace)
    view = View(run_id=run_dir.name, step="result")
    assert result_step.chosen_step(look(view)) == 400
    write_outcome(run_dir)
    assert result_step.chosen_step(look(view)) == 200
    assert result_step.chosen_step(look(replace(view, checkpoint=300))) == 300


def test_images_and_report_are_served_and_nothing_beside_them(workspace: Workspace):
    run_dir = record_run(workspace)
    write_outcome(run_dir)
    app = FastAPI()
    app.include_router(media_router(workspace))
    client = TestClient(app)
    report = client.get(report_url(run_dir, 1))
    assert report.text.endswith("the report")
    assert "attachment" in report.headers["content-disposition"]
    image = client.get(f"/media/runs/{run_dir.name}/evaluation/step-000200/0-0.jpg")
    assert image.headers["content-type"] == "image/jpeg"
    assert client.get(f"/media/runs/{run_dir.name}/evaluation.json").status_code == 404
    assert client.get("/media/reports/nothing.html").status_code == 404
    (run_dir / "evaluation.html").unlink()
    assert client.get(report_url(run_dir, 1)).status_code == 404


def test_a_run_without_an_evaluation_is_given_one_by_a_job(
    workspace: Workspace, look: Look, monkeypatch: pytest.MonkeyPatch
):
    run_dir = record_run(workspace)
    view = View(run_id=run_dir.name, step="result")
    assert evaluation_panel._can_be_evaluated(look(view))
    started = []
    monkeypatch.setattr(evaluation_panel, "start_job", lambda *given: started.append(given[2:]))
    assert evaluation_panel._evaluate(look(view), {}) == look(view).view
    assert started == [("evaluate", {"run_dir": str(run_dir)})]
    shutil.rmtree(run_dir / "checkpoints")
    assert not evaluation_panel._can_be_evaluated(look(view))


@pytest.mark.parametrize("name", ["sample", "save"])
def test_a_running_training_is_asked_for_images_and_for_a_checkpoint(
    workspace: Workspace, look: Look, name: str
):
    run_dir = record_run(workspace, outcome="running", up_to=200)
    view = View(run_id=run_dir.name, step="train")
    train_step._ask(look(view), name)
    assert (run_dir / "control" / name).exists()
    assert train_step._to_ask(look(view), name)["interactive"] is False
    consume_control(run_dir, name)
    assert train_step._to_ask(look(view), name)["interactive"] is True
    EventWriter(run_dir).write("stage", name="evaluating", message="Evaluating step 100: 4 of 24 images.")
    assert train_step._to_ask(look(view), name)["visible"] is False
    train_step._ask(look(view), name)
    assert not (run_dir / "control" / name).exists()
    early = record_run(workspace, sample="comet", outcome="running", up_to=0)
    assert train_step._to_ask(look(replace(view, run_id=early.name)), name)["visible"] is False
    done = record_run(workspace, sample="tinker")
    train_step._ask(look(replace(view, run_id=done.name)), name)
    assert not (done / "control" / name).exists()


def test_a_run_that_draws_no_images_is_only_asked_to_save(workspace: Workspace, look: Look):
    run_dir = record_run(workspace, outcome="running", up_to=20)
    config = RunConfig.load(run_dir / "config.json").model_copy(update={"validation_disable": True})
    config.save(run_dir / "config.json")
    page = look(View(run_id=run_dir.name, step="train"))
    visible = {name: train_step._to_ask(page, name)["visible"] for name in ("sample", "save")}
    assert visible == {"sample": False, "save": True}
