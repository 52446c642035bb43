"""Scores while a run trains, and the recommendation in its result, from what lies on the disk."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from dreamspace.files import write_json
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.workspace import Workspace
from dreamspace.ui import evaluation_panel, train_step
from dreamspace.ui.media import media_router, report_url
from dreamspace.ui.page import Page, View
from tests.ui.recorded import record_run

Look = Callable[[View], Page]
FIGURES = {"clip_mean": 0.3, "clip_i": 0.6, "dino": None, "spread": 0.1}


def candidate(step: int, **values: float) -> dict:
    name = f"step-{step:06d}"
    measured = {"fidelity": 0.5, "adherence": 0.9, "leak": 0.1, "copying": 0.0, "contrast": 1.0, "score": 0.4}
    return {
        "name": f"step {step}", "folder": name, "step": step, "weights": "trained",
        "path": f"checkpoints/{name}", "figures": FIGURES, "is_on_front": True, **measured, **values,
    }  # fmt: skip


def write_outcome(run_dir: Path) -> None:
    """An evaluation of two checkpoints and two prompts, with its images."""
    prompts = ["a photo of a sks dog at night", "a photo of a sks dog in the snow"]
    for folder in ("base", "step-000200", "step-000400"):
        for index in range(2):
            path = run_dir / "evaluation" / folder / f"{index}-0.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64), (90, 60 * index, 120)).save(path)
    (run_dir / "evaluation.html").write_text("<!doctype html>the report")
    outcome = {
        "best": "step-000200", "reason": "Step 200 is like the <photos>. After it nothing changes.",
        "warnings": ["Overfit from step 400 on."], "next_steps": ["Train fewer steps."],
        "candidates": [candidate(200), candidate(400, fidelity=0.4, score=0.3)],
        "prompts": prompts, "all_prompts": prompts, "leak_prompts": {}, "seeds": [0],
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
    for words in ("CLIP score", "0.250", "Eval loss", "0.125", "Likeness", "0.750", "Weak evidence"):
        assert words in shown
    assert shown.count("<circle") == 9


def test_what_is_held_out_is_named(workspace: Workspace, look: Look):
    run_dir = record_run(workspace)
    mixture = {"datasets": {"subject": 1.0}, "num_instances": 5, "num_prior": 0}
    EventWriter(run_dir).write("mixture", **mixture, held_out=["biscuit-4.png"])
    assert "biscuit-4.png" in evaluation_panel._scores(look(View(run_id=run_dir.name, step="train")))


def test_the_result_says_which_checkpoint_to_take_and_shows_all(workspace: Workspace, look: Look):
    run_dir = record_run(workspace)
    write_outcome(run_dir)
    page = look(View(run_id=run_dir.name, step="result"))
    shown = str(evaluation_panel._verdict(page))
    for words in ("Take step 200.", "&lt;photos&gt;", "Overfit from step 400", "Train fewer steps."):
        assert words in shown
    assert shown.count("<svg") == 2
    assert shown.count("<img") == 3 * 2
    assert not evaluation_panel._can_be_evaluated(page)


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
    done = record_run(workspace, sample="tinker")
    train_step._ask(look(replace(view, run_id=done.name)), name)
    assert not (done / "control" / name).exists()
