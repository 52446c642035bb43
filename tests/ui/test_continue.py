"""Going on from a checkpoint, and the files of a token that was learned along, in step 6."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from dreamspace.config import RunConfig
from dreamspace.jobs.events import EVENTS_FILE, read_events
from dreamspace.jobs.workspace import Workspace
from dreamspace.run_folder import EMBEDS_NAME, WEIGHTS_NAME
from dreamspace.ui import continue_panel
from dreamspace.ui.continue_panel import RESTARTED, STRETCHED, continue_intro, continue_run
from dreamspace.ui.downloads import downloads_router
from dreamspace.ui.page import Page, View
from dreamspace.ui.result_step import chosen_step
from dreamspace.ui.take_away import download_panel
from tests.ui.recorded import record_run


@pytest.mark.parametrize(("schedule", "restart_step"), [(STRETCHED, 0), (RESTARTED, 200)])
def test_a_chosen_checkpoint_goes_on_as_a_run_of_its_own(
    workspace: Workspace,
    look: Callable[[View], Page],
    monkeypatch: pytest.MonkeyPatch,
    schedule: str,
    restart_step: int,
) -> None:
    old = record_run(workspace)
    before = {path: path.stat().st_mtime_ns for path in old.rglob("*")}
    submitted = []
    monkeypatch.setattr(continue_panel, "submit", lambda *job: submitted.append(job))
    page = look(View(run_id=old.name, step="result", checkpoint=200))
    assert "begins where step 200" in continue_intro(page, chosen_step(page))
    view = continue_run(page, chosen_step(page), 150, schedule)
    new = workspace.run_dir(view.run_id)
    assert submitted == [(new, "train", {"resume": True})]
    assert view.step == "train"
    config = RunConfig.load(new / "config.json")
    assert (config.max_train_steps, config.lr_restart_step) == (350, restart_step)
    assert [path.name for path in (new / "checkpoints").iterdir()] == ["step-000200"]
    assert (new / "checkpoints" / "step-000200" / WEIGHTS_NAME).read_bytes() == b"adapter of step 200"
    assert max(event["step"] for event in read_events(new / EVENTS_FILE)[0]) == 200
    assert {path: path.stat().st_mtime_ns for path in old.rglob("*")} == before


def test_what_cannot_go_on_gets_a_sentence_and_leaves_no_run(
    workspace: Workspace, look: Callable[[View], Page]
) -> None:
    old = record_run(workspace, outcome="stopped", up_to=200)
    page = look(View(run_id=old.name, step="result"))
    for step, more, schedule, sentence in (
        (250, 100, STRETCHED, r"^Step 250 was not saved\. Choose one of the saved steps above: 100, 200\.$"),
        (100, None, STRETCHED, r"^The number of more steps must be 1 or above, got 0\. Give it some\.$"),
        (100, -3, STRETCHED, r"must be 1 or above, got -3\."),
        (100, 10, "bent", r"^There is no schedule 'bent'\. It is stretched or restarted\.$"),
    ):
        with pytest.raises(ValueError, match=sentence):
            continue_run(page, step, more, schedule)
    page.run.photos_dir.rename(workspace.root / "moved")
    with pytest.raises(ValueError, match=r"photos"):
        continue_run(page, 100, 10, STRETCHED)
    assert workspace.list_runs() == [old]


def test_a_token_that_was_learned_beside_an_adapter_is_a_download_of_its_own(
    workspace: Workspace, look: Callable[[View], Page], tmp_path: Path
) -> None:
    run_dir = record_run(workspace)
    for folder in (run_dir / "adapter", run_dir / "checkpoints" / "step-000200"):
        (folder / EMBEDS_NAME).write_bytes(f"token of {folder.name}".encode())
    panel = download_panel(look(View(run_id=run_dir.name)), 200)
    titles = re.findall("<strong>(.*?)</strong>", panel)
    assert titles[:2] == ["LoRA", "The learned token"]
    urls = re.findall(r'href="([^"]+format=token)"', panel)
    app = FastAPI()
    app.include_router(downloads_router(workspace))
    answers = [TestClient(app).get(url) for url in urls]
    assert [answer.content for answer in answers] == [b"token of step-000200", b"token of adapter"]
    names = [answer.headers["content-disposition"] for answer in answers]
    assert f'filename="{run_dir.name}-step-000200-token.safetensors"' in names[0]
    assert f'filename="{run_dir.name}-token.safetensors"' in names[1]
    # A token that is all that was trained is the file itself, and is not offered twice.
    (run_dir / "adapter" / WEIGHTS_NAME).unlink()
    assert TestClient(app).get(urls[1]).status_code == 404
    (run_dir / "checkpoints" / "step-000200" / EMBEDS_NAME).unlink()
    (tmp_path / "private").write_bytes(b"secret")
    (run_dir / "checkpoints" / "step-000200" / EMBEDS_NAME).symlink_to(tmp_path / "private")
    assert TestClient(app).get(urls[0]).status_code == 404


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({}, "Download the adapter"),
        ({"model_type": "full"}, "Download the weights"),
        ({"model_type": "textual_inversion", "num_token_vectors": 1, "token": "<sks>"}, "Download the token"),
    ],
)
def test_what_is_downloaded_is_called_what_it_is(
    workspace: Workspace, look: Callable[[View], Page], settings: dict[str, object], label: str
) -> None:
    run_dir = record_run(workspace)
    config = RunConfig.load(run_dir / "config.json").model_copy(update=settings)
    config.save(run_dir / "config.json")
    page = look(View(run_id=run_dir.name))
    assert f">{label}</a>" in download_panel(page, config.max_train_steps)
    panel = download_panel(page, 200)
    assert f">{label} of step 200</a>" in panel, "the one that is looked at comes first"
    assert f">Step {config.max_train_steps}</a>" in panel
    assert ("the adapter of" in panel) == (not settings)
