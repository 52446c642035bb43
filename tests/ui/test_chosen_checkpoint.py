"""The checkpoint that is recommended or chosen is what images are made with, downloaded and published."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from dreamspace.config import RunConfig
from dreamspace.files import read_json, write_json
from dreamspace.hub.staging import read_run
from dreamspace.jobs.workspace import Workspace
from dreamspace.run_folder import WEIGHTS_NAME
from dreamspace.ui import publish_step, result_step
from dreamspace.ui.downloads import downloads_router
from dreamspace.ui.page import Page, View
from dreamspace.ui.take_away import download_panel
from tests.ui.recorded import record_run
from tests.ui.test_evaluation_panel import write_outcome

Look = Callable[[View], Page]


@pytest.fixture
def run_dir(workspace: Workspace) -> Path:
    """A run whose averaged weights of step 200 are recommended."""
    run_dir = record_run(workspace)
    write_outcome(run_dir)
    outcome = read_json(run_dir / "evaluation.json")
    outcome["candidates"][0]["weights"] = "ema"
    write_json(run_dir / "evaluation.json", outcome)
    averaged = run_dir / "checkpoints" / "step-000200" / "ema"
    averaged.mkdir()
    (averaged / WEIGHTS_NAME).write_bytes(b"average of step 200")
    return run_dir


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [(None, (200, True)), (200, (200, True)), (300, (300, False)), (400, (None, False))],
)
def test_images_and_uploads_take_it(
    workspace: Workspace,
    look: Look,
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    chosen: int | None,
    expected: tuple[int | None, bool],
) -> None:
    page = look(View(run_id=run_dir.name, step="publish", checkpoint=chosen))
    started = {}

    def start_job(workspace: Workspace, title: str, kind: str, arguments: dict, **options: object) -> None:
        started[kind] = arguments["checkpoint"], arguments["ema"]

    for module in (result_step, publish_step):
        monkeypatch.setattr(module, "start_job", start_job)
    result_step._make(page, {}, "a sks dog", 1, 20, None)
    publish_step._publish(page, {}, "my-dog", True, "hf_Typed1234", lends_token=False)
    assert started == {"generate": expected, "publish": expected}


def test_the_preview_says_which_it_is(look: Look, run_dir: Path) -> None:
    view = View(run_id=run_dir.name, step="publish")
    preview = publish_step._preview(look(view))
    assert "Step 200, the moving average of its weights, which the comparison of all checkpoints" in preview
    preview = publish_step._preview(look(replace(view, checkpoint=400)))
    assert "Step 400. Another one is chosen in Result." in preview


def test_a_step_that_was_not_saved_is_refused_before_the_click(look: Look, run_dir: Path) -> None:
    shutil.rmtree(run_dir / "checkpoints" / "step-000300")
    preview = publish_step._preview(look(View(run_id=run_dir.name, step="publish", checkpoint=300)))
    assert "Step 300 was drawn but not saved. Choose one of the saved steps in Result: 100, 200" in preview
    assert "README.md" not in preview


def test_a_step_that_was_only_judged_is_published_with_those_images(look: Look, run_dir: Path) -> None:
    outcome = read_json(run_dir / "evaluation.json")
    folder = run_dir / "evaluation" / outcome["candidates"][0]["folder"]
    folder.mkdir(parents=True, exist_ok=True)
    for index, _ in enumerate(outcome["all_prompts"]):
        Image.new("RGB", (8, 8), "red").save(folder / f"{index}-0.jpg")
    shutil.rmtree(run_dir / "validation" / "step-000200")
    config = RunConfig.load(run_dir / "config.json")
    config.model_copy(update={"use_ema": True}).save(run_dir / "config.json")
    samples = read_run(run_dir, 200, ema=True).samples
    assert [(path.parent, prompt) for path, prompt in samples] == [
        (folder.resolve(), prompt) for prompt in outcome["prompts"]
    ]


def test_its_average_is_a_download_of_its_own(workspace: Workspace, look: Look, run_dir: Path) -> None:
    panel = download_panel(look(View(run_id=run_dir.name)), 200)
    app = FastAPI()
    app.include_router(downloads_router(workspace))
    url = re.findall(r'href="([^"]+)"[^>]*>Step 200, averaged<', panel)[0]
    answer = TestClient(app).get(url)
    assert answer.content == b"average of step 200"
    assert f'{run_dir.name}-step-000200-ema.safetensors"' in answer.headers["content-disposition"]
    assert "averaged" not in download_panel(look(View(run_id=run_dir.name)), 300)
