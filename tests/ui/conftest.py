"""A workspace of the test's own, the app as a process, and a browser."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from dreamspace.jobs.job import ProcessRecord, is_live
from dreamspace.jobs.workspace import Workspace
from dreamspace.mini.subjects import write_photos
from dreamspace.ui import changes
from dreamspace.ui.history import Histories
from dreamspace.ui.page import Page as PageState
from dreamspace.ui.page import View
from tests.ui.app_process import App

# A busy machine is slow to answer; what never comes is waited for once.
PATIENCE_MS = 90_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="session", autouse=True)
def samples_are_drawn_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sample subjects take half a second to draw, and nearly every test has one."""
    drawn: dict[str, list[Path]] = {}

    def copied(name: str, folder: Path) -> list[Path]:
        if name not in drawn:
            drawn[name] = write_photos(name, tmp_path_factory.mktemp(name))
        return [Path(shutil.copy(path, folder)) for path in drawn[name]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changes, "write_photos", copied)
        yield


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """An empty workspace; jobs that still run in it are ended with the test."""
    workspace = Workspace(tmp_path / "workspace")
    yield workspace
    end_jobs(workspace)


@pytest.fixture
def look(workspace: Workspace) -> Callable[[View], PageState]:
    """What a visitor sees at an address: `look(View(...))`."""
    return lambda view: PageState(workspace, Histories(), view)


def end_jobs(workspace: Workspace) -> None:
    """Kill the supervisors of jobs that are at work, and with them their workers."""
    for job_dir in (*workspace.list_runs(), *workspace.list_jobs()):
        record = ProcessRecord.read(job_dir)
        if record is not None and is_live(job_dir) and record.supervisor.pid != os.getpid():
            psutil.Process(record.supervisor.pid).kill()


@pytest.fixture
def start_app(workspace: Workspace) -> Iterator[Callable[..., App]]:
    """Start the app on the test's workspace: `start_app(HF_ENDPOINT=...)`."""
    apps = []

    def start(**environment: str) -> App:
        apps.append(App(workspace.root, environment))
        return apps[-1]

    yield start
    for app in apps:
        app.kill()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Chromium without a window: the machine's own, else Playwright's."""
    own = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        executable = own or playwright.chromium.executable_path
        if not Path(executable).exists():
            reason = "There is no Chromium here. Install it: apt-get install chromium"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def new_tab(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Open a tab with a session of its own: `new_tab(url, width_px=390)`.

    A message of the browser's console, a failed request or a request to another machine fails the test.
    """
    contexts, problems = [], []

    def open_tab(url: str, width_px: int = 1440, color_scheme: str = "light") -> Page:
        context = chromium.new_context(
            viewport={"width": width_px, "height": 900}, color_scheme=color_scheme, accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: problems.append(f"error in the page: {error}"))
        page.on("console", lambda m: problems.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("request", lambda r: _note_foreign(r.url, problems))
        page.goto(url)
        page.wait_for_selector("#steps nav")
        return page

    open_tab.problems = problems
    yield open_tab
    for context in contexts:
        context.close()
    assert not problems


def _note_foreign(url: str, problems: list[str]) -> None:
    if not url.startswith(("http://127.0.0.1:", "data:", "blob:")):
        problems.append(f"request to another machine: {url}")
