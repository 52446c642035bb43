"""The whole way in Chromium with real trainings of the embedded model: from photos to the Hub."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import psutil
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from safetensors import safe_open

from dreamspace.config import load_datasets, prior_of
from dreamspace.data.photos import photo_id
from dreamspace.jobs.events import EVENTS_FILE, read_events
from dreamspace.jobs.job import ProcessRecord
from dreamspace.jobs.workspace import Workspace
from dreamspace.mini.subjects import subject_photos
from tests.hub.fake_hub import FakeHub
from tests.ui.app_process import App

pytestmark = pytest.mark.browser

NewTab = Callable[..., Page]

# A training with pictures takes as long as the machine is busy.
TRAINING_MS = 600_000


def choose(page: Page, sample: str) -> None:
    """Choose a sample subject."""
    page.locator(f"[data-name={sample}]").click()
    expect(page.locator("#wall figure")).to_have_count(6)


def open_experts(page: Page, *sections: str) -> None:
    """Open sections of the expert settings."""
    page.get_by_role("button", name="Expert settings").click()
    for section in sections:
        page.locator("#expert button", has_text=section).click()
    page.wait_for_timeout(1500)  # Gradio fills a field that it has just built a moment later.


def set_expert(page: Page, **settings: str) -> None:
    """Fill in expert settings."""
    for name, value in settings.items():
        field = page.locator(f"#setting-{name} input, #setting-{name} textarea")
        field.fill(value)
        field.press("Tab")


def test_from_a_sample_subject_to_the_hub(
    start_app: Callable[..., App], new_tab: NewTab, workspace: Workspace, tmp_path: Path
) -> None:
    with FakeHub(tmp_path / "hub") as hub:
        app = start_app(HF_ENDPOINT=hub.endpoint, HF_HUB_DISABLE_TELEMETRY="1")
        page = new_tab(app.url)
        choose(page, "biscuit")
        caption_first(page)
        mask_subject(page, workspace)
        draw_class_images(page, workspace)
        page.fill("#num-steps input", "20")
        page.keyboard.press("Tab")
        expect(page.locator("#plan")).to_contain_text("20 steps")
        open_experts(page, "Checkpoints", "Validation images")
        set_expert(
            page,
            checkpoint_step_interval="10",
            validation_step_interval="10",
            validation_num_inference_steps="3",
            validation_preview_steps="1",
            validation_resolution="64",
        )
        expect(page.locator("#plan")).to_contain_text("6 photos and 4 class images, 1 with own captions")
        expect(page.locator("#plan")).to_contain_text("only the subject is learned")
        page.click("#start")
        expect(page.locator("#state h1")).to_have_text("It is done", timeout=TRAINING_MS)
        check_training(page, workspace)
        check_result(page, workspace, tmp_path)
        check_publishing(page, workspace, hub)


def caption_first(page: Page) -> None:
    field = page.locator("#wall textarea").first
    field.fill("a photo of a sks dog on a beach")
    field.press("Enter")
    expect(page.locator("#wall")).to_contain_text("1 with a caption of its own")
    page.click("#to-masks")


def mask_subject(page: Page, workspace: Workspace) -> None:
    """Find the masks of the sample subject, and compare them with the true ones."""
    expect(page.locator("#mask-state")).to_contain_text("No photo has a mask yet.")
    page.click("#mask")
    expect(page.locator("#mask-state [role=progressbar]")).to_be_visible()
    expect(page.locator("#mask-state")).to_contain_text("All 6 photos have a mask.", timeout=TRAINING_MS)
    expect(page.locator("#use-masks input")).to_be_checked()
    widths = page.locator("#masks img.is-overlay").evaluate_all(
        "images => Promise.all(images.map(image => image.decode().then(() => image.naturalWidth)))"
    )
    assert widths == [256] * 6
    subject_dir = workspace.list_subjects()[0]
    overlaps = []
    for image, true in subject_photos("biscuit"):
        found = Image.open(subject_dir / "masks_raw" / f"{photo_id(image)}.png")
        ours, theirs = (np.asarray(mask.convert("L")) >= 128 for mask in (found, true))
        overlaps.append((ours & theirs).sum() / (ours | theirs).sum())
    assert np.mean(overlaps) > 0.85
    page.click("#to-prior")


def draw_class_images(page: Page, workspace: Workspace) -> None:
    page.fill("#num-class-images input", "4")
    page.keyboard.press("Tab")
    expect(page.locator("#prior-images")).to_contain_text("0 of 4 class images", ignore_case=True)
    page.click("#draw")
    expect(page.locator("#prior-images [role=progressbar]")).to_be_visible()
    expect(page.locator("#prior-images")).to_contain_text(
        "4 of 4 class images", ignore_case=True, timeout=TRAINING_MS
    )
    expect(page.locator("#prior-images .ds-thumbs img")).to_have_count(4)
    assert len(list((workspace.priors / "mini" / "dog").glob("*.png"))) == 4
    page.click("#to-words")
    page.click("#to-settings")


def check_training(page: Page, workspace: Workspace) -> None:
    expect(page.locator("#state .ds-figures")).to_contain_text("20 of 20 steps")
    expect(page.locator("#grid thead th")).to_have_text(["", "before", "step 10", "step 20"])
    expect(page.locator("#grid img")).to_have_count(12)
    expect(page.locator("#chart path.is-trend")).to_be_visible()
    run_dir = workspace.list_runs()[0]
    datasets = load_datasets(run_dir / "multidatabackend.json")
    assert [dataset.id for dataset in datasets] == ["subject", "masks", "prior"]
    assert (datasets[0].caption_strategy, datasets[0].conditioning_data) == ("textfile", "masks")
    assert prior_of(datasets) == "base"
    assert len(list((run_dir / "previews").iterdir())) >= 12
    widths = page.locator("#grid img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert widths == [64] * 12
    page.click("#log-box button")
    expect(page.locator("#log pre")).not_to_be_empty()


def check_result(page: Page, workspace: Workspace, tmp_path: Path) -> None:
    page.click("#to-result")
    expect(page.locator("[data-compare]")).to_have_count(4)
    page.fill("#own-prompt textarea", "a photo of a sks dog on a beach\na photo of a sks dog at night")
    page.get_by_role("button", name="More").click()
    page.fill("#own-steps input", "2")
    page.click("#make")
    expect(page.locator("#made img")).to_have_count(2, timeout=TRAINING_MS)
    expect(page.locator("#made figcaption")).to_have_text(
        ["a photo of a sks dog on a beach", "a photo of a sks dog at night"]
    )
    expect(page.locator("#own-seed input")).to_have_value("2")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the adapter").click()
    # Of the step that is recommended, which may be the last one.
    name = rf"{workspace.list_runs()[0].name}(-step-\d{{6}})?\.safetensors"
    assert re.fullmatch(name, download.value.suggested_filename)
    download.value.save_as(tmp_path / "adapter.safetensors")
    with safe_open(tmp_path / "adapter.safetensors", framework="numpy") as tensors:
        assert any("lora" in name for name in tensors.keys())  # noqa: SIM118
    page.get_by_role("button", name=re.compile("^Make (it|step)")).first.click()
    expect(page.locator(".ds-making")).to_be_visible()
    merged = page.locator("#download li", has_text="The whole model").get_by_role("link", name="Download")
    expect(merged).to_be_visible(timeout=TRAINING_MS)
    with page.expect_download() as download:
        merged.click()
    download.value.save_as(tmp_path / "model.zip")
    with ZipFile(tmp_path / "model.zip") as archive:
        assert {name.partition("/")[2] for name in archive.namelist()} > {
            "model_index.json",
            "unet/diffusion_pytorch_model.safetensors",
        }


def check_publishing(page: Page, workspace: Workspace, hub: FakeHub) -> None:
    page.click("[data-event=go][data-step=publish]")
    expect(page.locator("#repo input, #repo textarea")).to_have_value("sks-dog")
    expect(page.locator("#private input")).to_be_checked()
    assert page.locator("#hub-token input").get_attribute("type") == "password"
    page.fill("#hub-token input", hub.token)
    page.click("#publish")
    link = page.locator("#publish-state a")
    expect(link).to_have_attribute("href", f"{hub.endpoint}/alice/sks-dog", timeout=TRAINING_MS)
    expect(page.locator("#hub-token input")).to_have_value("")
    repository = hub.repositories["alice/sks-dog"]
    assert repository.is_private
    expected = {"README.md", "adapter/pytorch_lora_weights.safetensors", "images/0.png"}
    assert expected <= repository.files.keys()
    files = [path for path in workspace.root.rglob("*") if path.is_file()]
    assert not [path for path in files if hub.token.encode() in path.read_bytes()]


def test_trainings_wait_stop_crash_and_resume(
    start_app: Callable[..., App], new_tab: NewTab, workspace: Workspace
) -> None:
    app = start_app()
    first = new_tab(app.url)
    start_endless(first, "sunset")
    second = new_tab(app.url)
    start_endless(second, "comet")
    expect(second.locator("#state h1")).to_have_text("Waiting for its turn")
    expect(second.locator("#state .ds-message")).to_contain_text("It waits for sks mug")
    expect(first.locator("#state h1")).to_have_text("Training", timeout=TRAINING_MS)
    first.click("#stop")
    expect(first.locator("#state h1")).to_have_text("Stopped", timeout=TRAINING_MS)
    expect(second.locator("#state h1")).to_have_text("Training", timeout=TRAINING_MS)

    run_dir = workspace.run_dir(next(path.name for path in workspace.list_runs() if "backpack" in path.name))
    wait_for_checkpoint(second, run_dir)
    kill_worker(run_dir)
    expect(second.locator("#state h1")).to_have_text("It crashed")
    expect(second.locator("#state .ds-message")).to_contain_text("it was killed (SIGKILL)")
    saved_at = max(int(path.name.removeprefix("step-")) for path in (run_dir / "checkpoints").glob("step-*"))
    _, num_bytes = read_events(run_dir / EVENTS_FILE)
    second.click("#resume")
    expect(second.locator("#state h1")).to_have_text("Training", timeout=TRAINING_MS)
    assert wait_for_loss(second, run_dir, num_bytes) == saved_at + 1
    second.click("#stop")
    expect(second.locator("#state h1")).to_have_text("Stopped", timeout=TRAINING_MS)


def start_endless(page: Page, sample: str) -> None:
    """Start a training that goes on until it is stopped, with a checkpoint every 5 steps."""
    choose(page, sample)
    page.click("[data-event=go][data-step=prior]")
    page.locator("[data-prior=none]").click()
    expect(page.locator("#prior-effect")).to_contain_text("show your subject")
    page.click("#to-words")
    page.click("#to-settings")
    page.fill("#num-steps input", "100000")
    open_experts(page, "Checkpoints", "Validation images")
    set_expert(page, checkpoint_step_interval="5")
    page.check("#setting-validation_disable input")
    expect(page.locator("#plan")).to_contain_text("no images while it trains")
    page.click("#start")
    expect(page.locator("#state h1")).to_be_visible()


def wait_for_checkpoint(page: Page, run_dir: Path) -> None:
    while not list((run_dir / "checkpoints").glob("step-*")):
        page.wait_for_timeout(200)


def wait_for_loss(page: Page, run_dir: Path, offset: int) -> int:
    """The step of the first loss from byte `offset` of the events on."""
    while True:
        events, _ = read_events(run_dir / EVENTS_FILE, offset)
        for event in events:
            if event["kind"] == "loss":
                return event["step"]
        page.wait_for_timeout(200)


def kill_worker(run_dir: Path) -> None:
    worker = ProcessRecord.read(run_dir).worker
    assert worker is not None
    os.kill(worker.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(worker.pid)] if psutil.pid_exists(worker.pid) else [], timeout=30)
