import os
from pathlib import Path

import pytest
from PIL import Image

from dreamspace.config import load_datasets, load_preset, save_datasets
from dreamspace.jobs.job import Ended, Job
from dreamspace.jobs.new_run import write_run
from dreamspace.jobs.workspace import Workspace
from dreamspace.ui import changes, library, overview
from dreamspace.ui.history import Histories
from dreamspace.ui.library import Run
from dreamspace.ui.page import Page, View
from dreamspace.ui.subject import Subject
from tests.ui.recorded import record_run


def files(folder: Path, count: int, shade: int = 0) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        Image.new("RGB", (40, 30), (shade, 20 * number, 9)).save(folder / f"{number}.jpg")
    return sorted(folder.iterdir())


def test_refused_files_leave_no_subject_behind(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    subject_dir, report = changes.add_photos(workspace, None, [tmp_path / "notes.png"])
    assert subject_dir is None
    assert [file.name for file in report.refused] == ["notes.png"]
    assert workspace.list_subjects() == []


def test_photos_that_a_run_learns_from_never_change(workspace: Workspace, tmp_path: Path) -> None:
    run_dir = record_run(workspace, up_to=0, outcome="stopped")
    subject_dir = Run.read(run_dir).subject_dir(workspace)
    before = [path.name for path in Subject.read(subject_dir).photos]

    added, _ = changes.add_photos(workspace, subject_dir, files(tmp_path / "new", 2))
    removed = changes.remove_photo(workspace, Subject.read(subject_dir), before[0].removesuffix(".png"))
    assert [path.name for path in Subject.read(subject_dir).photos] == before
    assert len(Subject.read(added).photos) == 8
    assert len(removed.photos) == 5
    assert Subject.read(added).class_word == "dog"

    again, _ = changes.add_photos(workspace, added, files(tmp_path / "more", 1, shade=200))
    assert again == added


def test_what_changes_nothing_copies_nothing(workspace: Workspace, tmp_path: Path) -> None:
    run_dir = record_run(workspace, up_to=0, outcome="stopped")
    subject_dir = Run.read(run_dir).subject_dir(workspace)
    (tmp_path / "notes.png").write_text("no picture")
    known = Subject.read(subject_dir).photos[0]
    for file in (tmp_path / "notes.png", known):
        assert changes.add_photos(workspace, subject_dir, [file])[0] == subject_dir
    subject = Subject.read(subject_dir)
    assert changes.remove_photo(workspace, subject, "../subject") == subject
    assert workspace.list_subjects() == [subject_dir]
    assert list(workspace.cache.iterdir()) == []


def test_a_sample_subject_is_made_once(workspace: Workspace) -> None:
    first = changes.choose_sample(workspace, "sunset")
    assert changes.choose_sample(workspace, "sunset") == first
    assert (Subject.read(first).class_word, Subject.read(first).token) == ("mug", "sks")
    assert len(Subject.read(first).photos) == 6
    assert list(workspace.cache.iterdir()) == []
    with pytest.raises(ValueError, match="There is no sample subject 'rex'"):
        changes.choose_sample(workspace, "rex")


def test_drafts_are_the_subjects_without_a_run(workspace: Workspace, tmp_path: Path) -> None:
    draft, _ = changes.add_photos(workspace, None, files(tmp_path / "new", 1))
    record_run(workspace, up_to=0, outcome="stopped")
    runs = library.list_all_runs(workspace)
    assert [subject.dir for subject in library.list_drafts(workspace, runs)] == [draft]


def test_a_run_is_deleted_with_its_jobs_and_with_photos_that_nobody_needs(workspace: Workspace) -> None:
    first, second = (record_run(workspace, up_to=0, outcome="stopped") for _ in range(2))
    subject_dir = Run.read(first).subject_dir(workspace)
    job_dir = workspace.new_job_dir("images")
    Job(kind="generate", arguments={"run_dir": str(first)}, submitted=1.0).write(job_dir)
    assert _question(workspace, first) == "Delete this run? With it go its images, checkpoints and adapter."
    library.delete_run(workspace, first.name)
    assert not first.exists()
    assert not job_dir.exists()
    assert subject_dir.exists()
    assert _question(workspace, second).endswith(", and the photos it learned from.")
    library.delete_run(workspace, second.name)
    assert not subject_dir.exists()
    assert [path for path in workspace.runs.iterdir() if path.is_dir()] == []


def test_photos_outside_of_the_workspace_stay_and_nothing_else_is_said(
    workspace: Workspace, tmp_path: Path
) -> None:
    run_dir = workspace.new_run_dir("dog")
    photos = files(tmp_path / "mine", 4)
    write_run(run_dir, load_preset("mini"), tmp_path / "mine", class_word="dog")
    Job(kind="train").write(run_dir)
    Ended(exit_status=0, signal=None, time=1.0, reason="exited").write(run_dir)
    assert _question(workspace, run_dir) == "Delete this run? With it go its images, checkpoints and adapter."
    library.delete_run(workspace, run_dir.name)
    assert not run_dir.exists()
    assert files(tmp_path / "mine", 0) == photos


def _question(workspace: Workspace, run_dir: Path) -> str:
    cards = overview.cards_of(Page(workspace, Histories(), View()))
    return next(card.question for card in cards if card.id == run_dir.name)


def test_a_run_at_work_is_not_deleted(workspace: Workspace) -> None:
    run_dir = record_run(workspace, outcome="running", up_to=20)
    with pytest.raises(ValueError, match=r"still at work here\. Stop it first"):
        library.delete_run(workspace, run_dir.name)
    assert run_dir.exists()
    with pytest.raises(ValueError, match="A run learns from these photos"):
        library.delete_draft(workspace, Run.read(run_dir).subject_dir(workspace).name)


@pytest.mark.parametrize("name", ["../subjects", "..", "", "nobody"])
def test_only_what_is_listed_can_be_deleted(workspace: Workspace, name: str) -> None:
    with pytest.raises(ValueError, match=r"not the name of a run|There is no run"):
        library.delete_run(workspace, name)


def test_a_run_whose_photos_are_gone_or_whose_files_are_broken_does_not_hide_the_others(
    workspace: Workspace,
) -> None:
    lost, broken, aimless, whole = (
        record_run(workspace, name, "stopped", 0) for name in ("comet", "tinker", "sunset", "biscuit")
    )
    library._remove(Run.read(lost).subject_dir(workspace))
    (broken / "config.json").write_text("{")
    datasets = load_datasets(aimless / "multidatabackend.json")
    save_datasets(
        [dataset for dataset in datasets if dataset.id != "subject"], aimless / "multidatabackend.json"
    )
    runs = {run.dir: run for run in library.list_all_runs(workspace)}
    assert set(runs) == {lost, whole}
    assert runs[lost].subject_dir(workspace) is None


def test_the_state_of_an_ended_run_is_read_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = record_run(workspace, outcome="done")
    assert Run.read(run_dir).status.status == "done"
    monkeypatch.setattr(library, "job_status", lambda _: pytest.fail("read again"))
    assert Run.read(run_dir).status.status == "done"
    os.utime(run_dir / "ended.json", (1, 1))
    with pytest.raises(pytest.fail.Exception):
        Run.read(run_dir)
