"""Shared by all tests: a lock and a workspace of their own, a tiny model of real classes, and photos."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tiny_runs import QUICK, draw_photos, run_command, write_run_folder

from dreamspace import cli, worker
from dreamspace.jobs.events import EVENTS_FILE, next_seq
from dreamspace.jobs.job import Job


@pytest.fixture(scope="session", autouse=True)
def _own_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test touches the user's workspace or waits for the user's jobs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMSPACE_LOCK_DIR", str(tmp_path_factory.mktemp("lock")))
        patch.setenv("DREAMSPACE_HOME", str(tmp_path_factory.mktemp("workspace")))
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 64 px in the layout of Stable Diffusion 1: real classes, few weights."""
    from tiny_models import build_stable_diffusion

    return build_stable_diffusion(tmp_path_factory.mktemp("tiny_model"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 4 photos of the subject."""
    return draw_photos(tmp_path_factory.mktemp("photos"), 4)


@pytest.fixture(scope="session")
def class_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 4 class images."""
    return draw_photos(tmp_path_factory.mktemp("class_photos"), 4, first=10)


@pytest.fixture(scope="session")
def finished_run(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, photos: Path, class_photos: Path
) -> Path:
    """A run with class images, dropout, accumulation and previews, trained by the real command."""
    run_dir = tmp_path_factory.mktemp("runs") / "finished"
    files = write_run_folder(run_dir.with_name("files"), tiny_model, photos, class_photos)
    result = run_command("train", *files, "--run", run_dir)
    assert result.returncode == 0, result.stderr
    return run_dir


class Result(NamedTuple):
    """What a command did: its exit status and what it printed."""

    status: int
    output: str
    errors: str


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs a command line in this process, with the real worker edge but no process of its own."""

    def submit(job_dir: Path, kind: str, arguments: dict[str, Any], **options: Any) -> None:
        job_dir.mkdir(parents=True, exist_ok=True)
        Job(kind, arguments, first_seq=next_seq(job_dir / EVENTS_FILE)).write(job_dir)
        with open(job_dir / "log.txt", "a") as log, contextlib.redirect_stderr(log):
            worker.main([str(job_dir)])

    def run(*arguments: str | Path | int) -> Result:
        capfd.readouterr()
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            status = leaving.code
        return Result(status, *capfd.readouterr())

    monkeypatch.setattr("dreamspace.commands.jobs.submit", submit)
    monkeypatch.setattr("dreamspace.worker.faulthandler.enable", lambda: None)
    monkeypatch.setattr("dreamspace.worker.signal.signal", lambda *arguments: None)
    return run


@pytest.fixture
def short(photos: Path, tmp_path: Path) -> list[str | Path]:
    """A short form that would do."""
    return ["train", "--photos", photos, "--class-word", "dog", "--run", tmp_path / "run"]


@pytest.fixture
def files(tiny_model: Path, photos: Path, tmp_path: Path) -> Path:
    """A folder with the two files of a quick run."""
    write_run_folder(tmp_path / "files", tiny_model, photos, **QUICK)
    return tmp_path / "files"
