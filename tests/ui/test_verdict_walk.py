"""The steps Train and Result in Chromium, on a real training of the embedded model that is judged."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from dreamspace.config import load_preset
from dreamspace.files import read_json, write_json
from dreamspace.jobs.launcher import submit
from dreamspace.jobs.new_run import write_run
from dreamspace.jobs.workspace import Workspace
from dreamspace.ui.changes import choose_sample
from tests.ui.app_process import App
from tests.ui.recorded import record_run
from tests.ui.test_evaluation_panel import write_outcome

pytestmark = pytest.mark.browser

NewTab = Callable[..., Page]

# A training with pictures takes as long as the machine is busy.
TRAINING_MS = 300_000

# Long enough to be asked for something on the way, and as little to draw as can be judged.
SETTINGS = [
    "max_train_steps=400",
    "train_batch_size=1",
    "checkpoint_step_interval=400",
    "validation_step_interval=400",
    "eval_steps_interval=200",
    'validation_prompts=["a photo of a sks dog at night"]',
    "validation_num_inference_steps=2",
    'evaluation_prompts=["a photo of a {subject} at night", "a photo of a {subject} in the snow"]',
    "num_evaluation_seeds=1",
]


def start_run(workspace: Workspace) -> Path:
    run_dir = workspace.new_run_dir("sks dog")
    photos = choose_sample(workspace, "biscuit") / "photos"
    write_run(run_dir, load_preset("mini"), photos, class_word="dog", token="sks", settings=SETTINGS)
    submit(run_dir, "train", {"resume": False})
    return run_dir


def test_a_run_is_watched_asked_and_judged(
    start_app: Callable[..., App], new_tab: NewTab, workspace: Workspace
) -> None:
    url = start_app().url
    new_tab(url)  # So that app and browser are warm when the training starts, and it does not end before.
    run_dir = start_run(workspace)
    page = new_tab(f"{url}/?run={run_dir.name}&step=train")
    ask_for_more(page, run_dir)
    expect(page.locator("#state h1")).to_have_text("It is done", timeout=TRAINING_MS)
    phone = new_tab(page.url, 390)
    for tab in (page, phone):
        check_curves(tab)
        check_verdict(tab, run_dir)


def ask_for_more(page: Page, run_dir: Path) -> None:
    """Ask the training for a checkpoint and images before it makes them itself."""
    page.locator("#save-now").click(timeout=TRAINING_MS)
    page.locator("#sample-now").click()
    asked = page.locator("#grid thead th", has_text=re.compile(r"^step (?!400$)\d+$"))
    expect(asked).to_have_count(1, timeout=TRAINING_MS)
    step = int(asked.inner_text().removeprefix("step "))
    assert list((run_dir / "validation" / f"step-{step:06d}").glob("*.png"))
    assert list((run_dir / "checkpoints").iterdir())


def check_curves(page: Page) -> None:
    curves = page.locator("#scores figure")
    expect(curves.locator("h3")).to_have_text(["CLIP score", "Likeness (CLIP-I)", "Eval loss"])
    for curve in curves.all():
        assert curve.locator("circle").count() >= 3
        assert len(curve.locator("polyline").get_attribute("points").split()) >= 3
    assert_fits(page)
    page.click("[data-event=go][data-step=result]")


def check_verdict(page: Page, run_dir: Path) -> None:
    outcome = read_json(run_dir / "evaluation.json")
    steps = [each["step"] for each in outcome["candidates"]]
    best = next(each for each in outcome["candidates"] if each["folder"] == outcome["best"])
    assert len(steps) == 2, "what was saved on demand is judged, too"
    expect(page.locator(".ds-verdict-best")).to_contain_text(f"Take {best['name']}. {outcome['reason']}")
    expect(page.locator("#verdict svg")).to_have_count(2)
    expect(page.locator("#verdict a[aria-current]")).to_have_attribute("data-checkpoint", str(best["step"]))
    for step in steps:
        # By keyboard: where a real run's dots lie, nobody knows, and two may lie on each other.
        page.locator(f"#verdict a[data-checkpoint='{step}']").press("Enter")
        expect(page.locator("#verdict a[aria-current]")).to_have_attribute("data-checkpoint", str(step))
        expect(page.locator("#choice [aria-pressed]")).to_contain_text(str(step))
        expect(page.locator(".ds-compare > .ds-frame > img").first).to_have_attribute(
            "alt", re.compile(f"^After {step} steps")
        )
        assert_loaded(page, "#comparison img")
    assert_fits(page)
    page.locator("#verdict summary", has_text="Images of every checkpoint").click()
    every = ".ds-verdict-every td img"
    expect(page.locator(every)).to_have_count(2 * (1 + len(steps)))
    assert_loaded(page, every)
    assert_fits(page)


def assert_loaded(page: Page, selector: str) -> None:
    widths = page.locator(selector).evaluate_all(
        "images => Promise.all(images.map(i => { i.loading = 'eager'; return i.decode(); }))"
        ".then(() => images.map(i => i.naturalWidth))"
    )
    assert widths
    assert all(widths), widths


def assert_fits(page: Page) -> None:
    """Whether the page is no wider than the window."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width_px", [390, 1440])
def test_a_dot_is_chosen_by_hand_and_by_keyboard(
    start_app: Callable[..., App], new_tab: NewTab, workspace: Workspace, width_px: int
) -> None:
    run_dir = record_run(workspace)
    write_outcome(run_dir)
    outcome = read_json(run_dir / "evaluation.json")
    outcome["candidates"][1]["fidelity"] = 0.455  # where the ring around the other dot goes through it
    write_json(run_dir / "evaluation.json", outcome)
    page = new_tab(f"{start_app().url}/?run={run_dir.name}&step=result", width_px)
    dot = page.get_by_label("step 400: likeness 46%, obedience 90%", exact=False)
    expect(dot).to_have_attribute("data-checkpoint", "400")
    expect(page.locator("#verdict a[aria-current]")).to_have_attribute("data-checkpoint", "200")
    box = dot.locator("circle").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] + 3)  # beside it, as fingers do
    expect(page.locator("#comparison img").first).to_have_attribute("src", re.compile("step-000400/0.png"))
    expect(page.locator("#comparison")).to_be_in_viewport()
    assert "checkpoint=400" in page.url
    page.locator("#verdict a[data-checkpoint='200']").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#comparison img").first).to_have_attribute("src", re.compile("step-000200/0.png"))
    expect(page.locator("#verdict a[aria-current]")).to_have_attribute("data-checkpoint", "200")
    assert page.evaluate("document.activeElement.dataset.checkpoint") == "200", "the keyboard lost its place"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.checkpoint") == "400"
    dot.locator("circle").click()
    expect(page.locator("#verdict a[aria-current]")).to_have_attribute("data-checkpoint", "400")
