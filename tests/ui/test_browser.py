"""The app in Chromium: short pieces of the way, on recorded runs."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.workspace import Workspace
from dreamspace.ui.library import Run, list_all_runs
from dreamspace.ui.media import mask_url
from dreamspace.ui.subject import Subject
from tests.ui.app_process import App
from tests.ui.recorded import mask_sample, record_run

pytestmark = pytest.mark.browser

NewTab = Callable[..., Page]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One workspace for all these tests, as the app is one: to start it takes seconds."""
    return Workspace(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def app(workspace: Workspace) -> Iterator[App]:
    app = App(workspace.root, {})
    yield app
    app.kill()


def test_photos_are_taken_or_refused_by_name_and_can_be_removed(
    app: App, new_tab: NewTab, workspace: Workspace, tmp_path: Path
) -> None:
    files = []
    for number in range(4):
        files.append(tmp_path / f"photo{number}.jpg")
        Image.new("RGB", (300 + number, 200), (60 * number, 90, 120)).save(files[-1])
    Image.open(files[0]).save(tmp_path / "again.png")
    (tmp_path / "notes.txt").write_text("no picture")
    page = new_tab(app.url)
    expect(page.locator("#to-masks")).to_be_disabled()
    page.set_input_files("#upload input[type=file]", [*files, tmp_path / "notes.txt"])
    expect(page.locator("#wall figure")).to_have_count(4)
    expect(page.locator("#import-report")).to_contain_text("1 file was left out, the others were added.")
    expect(page.locator("#import-report li")).to_have_text(
        "notes.txt this is not a JPEG, PNG, WebP, AVIF, TIFF, HEIC, GIF or BMP image, or it is damaged."
    )
    assert (
        page.locator("#wall img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    )
    uploads = workspace.cache / "uploads"
    assert [path for path in uploads.rglob("*") if path.is_file() and path.stat().st_size] == []

    page.locator("#wall figure").first.hover()
    page.locator("#wall figure button").first.click()
    expect(page.locator("#wall figure")).to_have_count(3)
    expect(page.locator("#wall")).to_contain_text("A few more would help")

    page.click("#to-masks")
    expect(page.get_by_text("class_word is empty. Say what the subject is, such as 'dog'.")).to_be_visible()
    page.fill("#class-word input, #class-word textarea", "dog")
    expect(page.locator("#phrase")).to_contain_text("“a photo of a sks dog”")
    page.click("#to-masks")
    expect(page.locator("#masks figure")).to_have_count(3)
    page.click("#to-prior")
    expect(page.locator("#prior-effect")).to_contain_text("800 show your subject")
    page.click("#to-words")
    page.click("#to-settings")
    expect(page.locator("#plan")).to_contain_text("3 photos and 24 class images")
    page.reload()
    expect(page.locator("#plan")).to_contain_text("“a photo of a sks dog”")


def test_an_open_page_asks_for_news_and_nothing_else(app: App, new_tab: NewTab, workspace: Workspace) -> None:
    run_dir = record_run(workspace)
    page = new_tab(f"{app.url}/?run={run_dir.name}&step=settings")
    page.fill("#num-steps input", "300")
    expect(page.locator("#plan")).to_contain_text("300")
    page.wait_for_timeout(2000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(9000)
    assert 1 <= len(asked) <= 9000 / 1500, asked


def test_the_last_of_two_quick_clicks_is_where_the_page_ends(
    app: App, new_tab: NewTab, workspace: Workspace
) -> None:
    run_dir = record_run(workspace)
    page = new_tab(f"{app.url}/?run={run_dir.name}&step=train")
    for first, last in (("prior", "masks"), ("masks", "prior"), ("prior", "settings"), ("result", "train")):
        page.evaluate(
            """([first, last]) => new Promise((done) => {
                document.querySelector(`[data-event=go][data-step=${first}]`).click();
                setTimeout(() => {
                    document.querySelector(`[data-event=go][data-step=${last}]`).click();
                    done();
                }, 30);
            })""",
            [first, last],
        )
        expect(page.locator("#steps [aria-current=step]")).to_have_attribute("data-step", last)
        page.wait_for_timeout(1000)
        expect(page.locator("#steps [aria-current=step]")).to_have_attribute("data-step", last)


def test_a_wrong_setting_is_said_and_starts_nothing(app: App, new_tab: NewTab, workspace: Workspace) -> None:
    page = new_tab(app.url)
    page.get_by_title("A calico cat").click()
    expect(page.locator("#wall figure")).to_have_count(6)
    page.click("[data-event=go][data-step=settings]")
    expect(page.locator("#plan")).to_contain_text("about")
    page.fill("#num-steps input", "0")
    page.keyboard.press("Tab")
    expect(page.locator("#plan .is-danger")).to_have_text(
        "Settings: max_train_steps must be at least 1, got 0."
    )
    page.click("#start")
    expect(page.locator(".toast-body")).to_contain_text(
        "Settings: max_train_steps must be at least 1, got 0."
    )
    page.fill("#num-steps input", "20")
    open_experts(page, "Adapter")
    page.fill("#setting-lora_alpha input, #setting-lora_alpha textarea", "<b onclick=alert(1)>8</b>")
    page.click("#start")
    sentence = 'Settings: lora_alpha must be a number, got "<b onclick=alert(1)>8</b>".'
    expect(page.locator("#plan .is-danger")).to_have_text(sentence)
    expect(page.locator(".toast-body", has_text="lora_alpha")).to_contain_text(sentence)
    assert not any(run.title == "sks cat" for run in list_all_runs(workspace))


def open_experts(page: Page, section: str) -> None:
    """Open a section of the expert settings."""
    page.get_by_role("button", name="Expert settings").click()
    page.locator("#expert button", has_text=section).click()
    page.wait_for_timeout(1500)  # Gradio fills a field that it has just built a moment later.


def test_captions_are_saved_one_by_one_and_follow_the_words(
    app: App, new_tab: NewTab, workspace: Workspace
) -> None:
    page = new_tab(app.url)
    page.locator("[data-name=tinker]").click()
    fields = page.locator("#wall textarea")
    expect(fields).to_have_count(6)
    fields.nth(0).fill("a photo of a sks robot on a beach")
    fields.nth(0).press("Enter")
    expect(page.locator("#wall")).to_contain_text("1 with a caption of its own")
    fields.nth(2).fill("in the meadow")
    fields.nth(1).focus()
    expect(page.locator("#wall")).to_contain_text("2 with captions of their own")
    page.fill("#token input, #token textarea", "ohwx")
    expect(page.locator("#phrase")).to_contain_text("“a photo of a ohwx robot”")
    page.click("#to-masks")
    expect(page.locator("#masks figure")).to_have_count(6)
    page.reload()
    page.click("[data-event=go][data-step=photos]")
    expect(fields.nth(0)).to_have_value("a photo of a ohwx robot on a beach")
    expect(fields.nth(2)).to_have_value("in the meadow")
    expect(fields.nth(1)).to_have_value("")
    expect(fields.nth(1)).to_have_attribute("placeholder", "a photo of a ohwx robot")


@pytest.mark.parametrize("width_px", [390, 1440])
def test_a_mask_is_painted_erased_undone_and_shaped(
    app: App, new_tab: NewTab, workspace: Workspace, tmp_path: Path, width_px: int
) -> None:
    photo = tmp_path / "photo.png"
    Image.effect_noise((300 + width_px, 200), 60).convert("RGB").save(photo)
    page = new_tab(app.url, width_px)
    page.set_input_files("#upload input[type=file]", photo)
    expect(page.locator("#wall figure")).to_have_count(1)
    page.click("[data-event=go][data-step=masks]")
    tile = page.locator("#masks figure")
    expect(tile).to_contain_text("no mask yet")
    expect(page.locator("#use-masks input")).not_to_be_checked()
    tile.locator("button").click()
    canvas = page.locator(".ds-editor canvas")
    expect(page.locator(".ds-editor [data-do=save]")).to_be_enabled()
    assert page.evaluate("document.documentElement.scrollWidth") <= width_px

    def stroke(height: float) -> None:
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + height * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + height * box["height"], steps=4)
        page.mouse.up()

    stroke(0.25)
    stroke(0.75)
    page.click(".ds-editor [data-do=undo]")
    page.click(".ds-editor [data-tool=erase]")
    box = canvas.bounding_box()
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.25 * box["height"])
    page.click(".ds-editor [data-do=save]")
    expect(page.locator(".ds-editor")).to_have_count(0)
    expect(tile).not_to_contain_text("no mask yet")
    expect(page.locator("#use-masks input")).to_be_checked()
    subject_dir = workspace.list_subjects()[0]
    [raw] = (subject_dir / "masks_raw").iterdir()
    mask = Image.open(raw)
    assert mask.size == (300 + width_px, 200)
    width, height = mask.size
    values = [mask.getpixel((round(x * width), round(y * height))) for x, y in
              ((0.3, 0.25), (0.7, 0.25), (0.5, 0.25), (0.5, 0.75), (0.05, 0.05))]  # fmt: skip
    assert values == [255, 255, 0, 0, 0]

    before = tile.locator("img.is-overlay").get_attribute("src")
    slider = page.locator("#grow input[type=range]")
    slider.focus()
    for _ in range(3):
        slider.press("ArrowRight")
    grown = Subject(subject_dir, grow=3 / 128)
    imported = grown.photos[0]
    shown = mask_url(grown, imported, "overlay")
    assert shown != before
    expect(tile.locator("img.is-overlay")).to_have_attribute("src", shown)
    page.get_by_text("As the loss sees it").click()
    cells = tile.locator("img.is-cells")
    expect(cells).to_have_attribute("src", mask_url(grown, imported, "cells", 128))
    expect(cells).to_be_visible()
    assert cells.evaluate("image => image.decode().then(() => image.naturalWidth)") == 320
    page.reload()
    expect(page.locator("#grow input[type=number]")).to_have_value("3")
    tile.locator("button").click()
    page.click(".ds-editor [data-do=forget]")
    expect(tile).to_contain_text("no mask yet")
    page.click("[data-event=go][data-step=settings]")
    expect(page.locator("#plan")).to_contain_text("Photo 1 has no mask yet.")


def test_the_prior_is_chosen_and_the_plan_follows(app: App, new_tab: NewTab, workspace: Workspace) -> None:
    page = new_tab(app.url)
    page.get_by_title("A calico cat").click()
    expect(page.locator("#wall figure")).to_have_count(6)
    page.click("[data-event=go][data-step=prior]")
    cards = page.locator("#prior-cards button")
    expect(cards).to_have_count(4)
    expect(page.locator("#prior-cards [aria-pressed=true]")).to_have_attribute("data-prior", "base")
    expect(page.locator("#setting-prior_loss_weight")).to_be_hidden()
    page.locator("[data-prior=noise]").click()
    expect(page.locator("#setting-prior_loss_weight")).to_be_visible()
    page.fill("#num-class-images input", "12")
    page.keyboard.press("Tab")
    expect(page.locator("#prior-images")).to_contain_text("0 of 12 class images", ignore_case=True)
    page.locator("[data-prior=image-free]").click()
    expect(page.locator("#class-images")).to_be_hidden()
    expect(page.locator("#prior-effect")).to_contain_text("are your photos under the class word")
    page.click("#to-words")
    page.click("#to-settings")
    expect(page.locator("#plan")).to_contain_text("without images")
    expect(page.locator("#plan")).not_to_contain_text("class images")
    expect(page.locator("#rollout-advice")).to_contain_text("With 6 photos it is worth a try.")
    page.check("#rollout input")
    expect(page.locator("#rollout-advice")).not_to_contain_text("worth a try")
    open_experts(page, "Rollout (scheduled sampling)")
    for name, value in {"max_step_offset": "10", "probability": "1", "ramp_steps": "400"}.items():
        expect(page.locator(f"#setting-scheduled_sampling_{name} input")).to_have_value(value)


def test_a_model_is_chosen_and_every_step_follows_its_size(
    app: App, new_tab: NewTab, workspace: Workspace
) -> None:
    page = new_tab(app.url)
    page.get_by_title("A calico cat").click()
    expect(page.locator("#wall figure")).to_have_count(6)
    page.click("[data-event=go][data-step=settings]")
    expect(page.locator("#plan")).to_contain_text("mini, at 128 px")
    page.locator("#models summary", has_text="Stable Diffusion XL").click()
    page.locator('#models [data-choice*="sdxl/base-1.0"]').click()
    expect(page.locator("#plan")).to_contain_text("SDXL base, at 1024 px")
    expect(page.locator("#resolution input")).to_have_value("1024")
    page.locator("#precisions button", has_text="nf4").click()
    expect(page.locator("#plan")).to_contain_text("kept in nf4-bnb")
    page.reload()
    expect(page.locator("#plan")).to_contain_text("SDXL base, at 1024 px")
    page.click("[data-event=go][data-step=photos]")
    expect(page.locator("#wall")).to_contain_text("1024 × 1024 px")


def test_runs_are_found_again_after_a_reload_in_a_second_tab_and_by_a_restarted_app(
    app: App, new_tab: NewTab, workspace: Workspace
) -> None:
    run_dir = record_run(workspace, "tinker", outcome="running", up_to=150)
    page = new_tab(app.url)
    card = page.locator(f".ds-run[data-id={run_dir.name}]")
    expect(card.locator("strong")).to_have_text("sks robot")
    card.locator("a").click()
    expect(page.locator("#state h1")).to_have_text("Training")
    assert f"run={run_dir.name}" in page.url
    page.reload()
    expect(page.locator("#state h1")).to_have_text("Training")
    second = new_tab(page.url)
    expect(second.locator("#state .ds-figures")).to_contain_text("150 of 400 steps")

    new_tab.problems.clear()
    app.kill()
    events = EventWriter(run_dir)
    events.write("progress", step=260, num_steps=400, steps_per_second=5.0, eta_seconds=28.0)
    app.start()
    for tab in (page, second):
        expect(tab.locator("#state .ds-figures")).to_contain_text("260 of 400 steps")
        expect(tab.locator("#state .ds-bar i")).to_have_attribute("style", "width:65%")
    new_tab.problems.clear()  # Of the moments without an app.


def test_new_pictures_and_losses_arrive_by_themselves(
    app: App, new_tab: NewTab, workspace: Workspace
) -> None:
    run_dir = record_run(workspace, outcome="running", up_to=150)
    page = new_tab(f"{app.url}/?run={run_dir.name}&step=train")
    expect(page.locator("#grid thead th")).to_have_count(3)
    page.evaluate("document.querySelector('#grid img').isTheSame = true")
    before = page.locator("#chart path.is-trend").get_attribute("d")
    events = EventWriter(run_dir)
    for step in range(151, 201):
        events.write("loss", step=step, loss=0.1)
    path = "validation/step-000100/0.png"
    events.write("sample", step=200, prompt="a photo of a sks dog", seed=42, path=path, weights="trained")
    expect(page.locator("#grid thead th")).to_have_text(["", "before", "step 100", "step 200"])
    assert page.locator("#chart path.is-trend").get_attribute("d") != before
    assert page.evaluate("document.querySelector('#grid img').isTheSame"), (
        "pictures were replaced, they flicker"
    )


def test_before_and_after_are_pulled_by_hand_and_by_keyboard(
    app: App, new_tab: NewTab, workspace: Workspace
) -> None:
    run_dir = record_run(workspace)
    page = new_tab(f"{app.url}/?run={run_dir.name}&step=result")
    frame, slider = page.locator(".ds-frame").first, page.locator("[data-compare]").first
    expect(frame).to_have_attribute("style", "--at:50%")
    box = frame.bounding_box()
    page.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + 20)
    at = float(re.search(r"--at: ?([\d.]+)%", frame.get_attribute("style"))[1])
    assert 70 < at < 90
    slider.press("Home")
    expect(frame).to_have_attribute("style", re.compile("--at: ?0%"))
    page.get_by_role("button", name="200", exact=True).click()
    expect(page.locator("#comparison img").first).to_have_attribute("src", re.compile("step-000200/0.png"))
    assert "checkpoint=200" in page.url
    expect(page.locator("#download")).to_contain_text("of step 200")


def test_deleting_asks_first(app: App, new_tab: NewTab, workspace: Workspace) -> None:
    run_dir = record_run(workspace, "sunset", up_to=20, outcome="stopped")
    subject_dir = Run.read(run_dir).subject_dir(workspace)
    page = new_tab(f"{app.url}/?run={run_dir.name}&step=train")
    card = page.locator(f".ds-run[data-id={run_dir.name}]")
    card.locator("summary").click()
    expect(card.locator(".ds-question")).to_contain_text("and the photos it learned from")
    card.get_by_role("button", name="Keep").click()
    expect(card.locator(".ds-question")).to_be_hidden()
    assert run_dir.exists()
    card.locator("summary").click()
    card.get_by_role("button", name="Delete", exact=True).click()
    expect(card).to_have_count(0)
    expect(page.locator("#wall")).to_contain_text("Your photos will appear here.")
    assert not run_dir.exists()
    assert not subject_dir.exists()


def test_the_open_run_is_in_view_on_a_phone_and_its_button_covers_nothing(
    app: App, new_tab: NewTab, workspace: Workspace
) -> None:
    run_dir = record_run(workspace, up_to=20, outcome="stopped")
    for _ in range(3):
        record_run(workspace, up_to=0, outcome="stopped")
    page = new_tab(f"{app.url}/?run={run_dir.name}&step=train", 390)
    card = page.locator(f".ds-run[data-id={run_dir.name}]")
    expect(card).to_be_in_viewport(ratio=0.9)
    expect(card.locator("small")).to_be_hidden()
    button, status = (card.locator(part).bounding_box() for part in (".ds-resume", ".ds-status"))
    assert status["x"] + status["width"] <= button["x"] or status["y"] + status["height"] <= button["y"]


@pytest.mark.parametrize("width_px", [390, 1440])
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_every_step_fits_the_window_in_both_schemes(
    app: App, new_tab: NewTab, workspace: Workspace, width_px: int, color_scheme: str
) -> None:
    run_dir = record_run(workspace)
    page = new_tab(f"{app.url}/?run={run_dir.name}", width_px, color_scheme)
    mask_sample(Subject.read(Run.read(run_dir).subject_dir(workspace)))
    for step in ("photos", "masks", "prior", "words", "settings", "train", "result", "publish"):
        page.click(f"[data-event=go][data-step={step}]")
        expect(page.locator(f"nav[data-step={step}]")).to_be_visible()
        page.wait_for_timeout(500)
        if step == "settings":
            open_experts(page, "Validation images")
        assert page.evaluate("document.documentElement.scrollWidth") <= width_px
        too_wide = page.evaluate(
            """() => [...document.querySelectorAll("#main *")]
                .filter(e => e.offsetWidth && !e.closest(".ds-scroll"))
                .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
                .map(e => e.outerHTML.slice(0, 80))"""
        )
        assert too_wide == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    is_dark = sum(map(int, re.findall(r"\d+", background)[:3])) < 200
    assert is_dark == (color_scheme == "dark")


def test_words_of_a_worker_stay_words_in_the_page(app: App, new_tab: NewTab, workspace: Workspace) -> None:
    run_dir = record_run(workspace, up_to=100)
    evil = "<img src=x onerror='window.owned=1'>${window.owned=2}{{window.owned}}"
    events = EventWriter(run_dir)
    events.write("warning", message=evil, hint=evil)
    events.write(
        "sample", step=100, prompt=evil, seed=1, path="validation/step-000100/0.png", weights="trained"
    )
    (run_dir / "log.txt").write_text(evil)
    page = new_tab(f"{app.url}/?run={run_dir.name}&step=train")
    expect(page.locator("#state .is-warning")).to_contain_text(evil)
    page.click("#log-box button")
    expect(page.locator("#log pre")).to_have_text(evil)
    page.click("[data-event=go][data-step=result]")
    expect(page.locator("#comparison")).to_contain_text(evil)
    assert page.evaluate("window.owned") is None
