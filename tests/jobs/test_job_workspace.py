import os
import time
from pathlib import Path

import pytest

from dreamspace.jobs.control import consume_control, is_stopping, request, stop_requested
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.job import Ended, Job, ProcessRecord
from dreamspace.jobs.process import ProcessIdentity
from dreamspace.jobs.workspace import Workspace, job_status


def test_root_is_the_argument_else_the_variable_else_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DREAMSPACE_HOME", raising=False)
    assert Workspace().root == tmp_path / "workspace"
    monkeypatch.setenv("DREAMSPACE_HOME", str(tmp_path / "home"))
    assert Workspace().root == tmp_path / "home"
    assert Workspace(tmp_path / "given").runs == tmp_path / "given" / "runs"
    assert sorted(os.listdir(tmp_path / "given")) == ["cache", "jobs", "priors", "runs", "subjects"]


def test_a_root_that_is_a_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="Set DREAMSPACE_HOME"):
        Workspace(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("My Dog's 1st run!", "my-dog-s-1st-run"),
        ("Hündchen", "hundchen"),
        ("犬", "run"),
        ("../../etc", "etc"),
        ("a" * 200, "a" * 40),
        ("", "run"),
    ],
)
def test_new_runs_have_safe_names_that_can_be_looked_up(tmp_path: Path, name: str, slug: str) -> None:
    workspace = Workspace(tmp_path)
    first, second = workspace.new_run_dir(name), workspace.new_run_dir(name)
    assert first != second
    assert first.name.rpartition("-")[0] == slug
    assert first.parent == workspace.runs
    assert workspace.run_dir(first.name) == first


@pytest.mark.parametrize(
    "run_id",
    ["../x", "..", ".", "", "a/b", "/etc", "a\0b", "a\n", ".hidden", "x" * 81, "a\\..\\b", "link", "C:x"],
)
def test_ids_that_could_leave_the_workspace_are_refused(tmp_path: Path, run_id: str) -> None:
    workspace = Workspace(tmp_path / "workspace")
    (tmp_path / "x").mkdir()
    (workspace.root / "x").mkdir()
    (workspace.runs / "link").symlink_to(tmp_path / "x")
    with pytest.raises(ValueError, match="is not the name of a run"):
        workspace.run_dir(run_id)


def test_an_unknown_id_names_the_nearest(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    subject_dir = workspace.new_subject_dir("dog")
    with pytest.raises(ValueError, match=f"Did you mean '{subject_dir.name}'"):
        workspace.subject_dir(subject_dir.name + "x")


def test_runs_are_listed_the_most_recently_started_first(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    runs = [workspace.new_run_dir(name) for name in ("a", "b", "c")]
    for age, run in zip((2, 3, 1), runs, strict=True):
        Job("train").write(run)
        os.utime(run / "job.json", (1000 - age, 1000 - age))
    (workspace.runs / "stray.txt").touch()
    assert workspace.list_runs() == [runs[2], runs[0], runs[1]]
    assert workspace.list_subjects() == []


def write_record(job_dir: Path, **fields: object) -> None:
    ProcessRecord(supervisor=ProcessIdentity.of(os.getpid()), **fields).write(job_dir)


DEAD = ProcessIdentity(pid=2**22 + 1, create_time=0.0, boot_time=0.0)


def test_status_follows_from_files_and_process(tmp_path: Path) -> None:
    Job("train", submitted=time.time()).write(tmp_path)
    assert job_status(tmp_path).status == "queued"
    Job("train", submitted=time.time() - 3600).write(tmp_path)
    assert job_status(tmp_path).status == "crashed"

    write_record(tmp_path, waits_for=("first-run", "second-run"))
    status = job_status(tmp_path)
    assert (status.status, status.waits_for) == ("queued", ("first-run", "second-run"))
    assert status.message == "Waiting for first-run, then second-run."

    write_record(tmp_path, worker=DEAD)
    events = EventWriter(tmp_path)
    events.write("progress", step=5, num_steps=20)
    events.write("stage", name="validating", message="Making images.")
    status = job_status(tmp_path)
    assert (status.status, status.step, status.num_steps) == ("running", 5, 20)
    assert (status.stage, status.message) == ("validating", "Making images.")

    request(tmp_path, "stop")
    assert job_status(tmp_path).status == "stopping"
    assert consume_control(tmp_path, "stop")
    assert job_status(tmp_path).status == "stopping"

    events.write("stopped", step=6, path="checkpoints/step-000006")
    assert (job_status(tmp_path).status, job_status(tmp_path).step) == ("stopped", 6)


def test_a_dead_process_without_a_final_event_is_crashed_and_says_where(tmp_path: Path) -> None:
    Job("train").write(tmp_path)
    EventWriter(tmp_path).write("progress", step=120, num_steps=400)
    ProcessRecord(supervisor=DEAD, worker=DEAD).write(tmp_path)
    status = job_status(tmp_path)
    assert status.status == "crashed"
    assert "step 120" in status.message
    assert "Resume" in status.hint
    Ended(exit_status=None, signal=9, time=0.0, reason="exited").write(tmp_path)
    assert "SIGKILL" in job_status(tmp_path).message


def test_the_final_event_of_an_earlier_attempt_does_not_count(tmp_path: Path) -> None:
    events = EventWriter(tmp_path)
    events.write("progress", step=7, num_steps=9)
    events.write("stopped", step=7)
    Job("train", first_seq=2).write(tmp_path)
    ProcessRecord(supervisor=DEAD).write(tmp_path)
    assert job_status(tmp_path).status == "crashed"
    write_record(tmp_path, worker=DEAD)
    assert (job_status(tmp_path).status, job_status(tmp_path).step) == ("running", 7)


def test_the_status_of_a_long_log_is_read_from_its_end(tmp_path: Path) -> None:
    Job("train").write(tmp_path)
    events = EventWriter(tmp_path)
    events.write("stage", name="training", message="Training.")
    events.write("progress", step=1, num_steps=400_000)
    line = b'{"seq":2,"time":0.0,"kind":"loss","step":2,"loss":0.5,"learning_rate":0.0001}\n'
    with open(tmp_path / "events.jsonl", "ab") as file:
        file.write(line * 400_000)
    write_record(tmp_path, worker=DEAD)
    begin = time.process_time()
    status = job_status(tmp_path)
    assert time.process_time() - begin < 0.5  # a hundred times less than all of it takes
    assert (status.status, status.stage, status.message) == ("running", "training", "Training.")
    assert (status.step, status.num_steps) == (2, 400_000)


def test_the_stage_of_an_earlier_attempt_does_not_count_but_its_steps_do(tmp_path: Path) -> None:
    events = EventWriter(tmp_path)
    events.write("stage", name="training", message="Training.")
    events.write("progress", step=7, num_steps=9)
    Job("train", first_seq=2).write(tmp_path)
    write_record(tmp_path, worker=DEAD)
    status = job_status(tmp_path)
    assert (status.stage, status.message, status.step, status.num_steps) == ("", "", 7, 9)
    events.write("stage", name="loading", message="Loading the model.")
    assert job_status(tmp_path).stage == "loading"


def test_the_step_of_a_failure_with_a_very_long_traceback_is_known(tmp_path: Path) -> None:
    Job("train").write(tmp_path)
    events = EventWriter(tmp_path)
    events.write("progress", step=7, num_steps=9)
    events.write("failed", error="KeyError", message="x", hint="", traceback="y" * 100_000)
    assert (job_status(tmp_path).status, job_status(tmp_path).step) == ("failed", 7)


def test_a_broken_or_foreign_job_file_names_the_file_and_key(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no file .*job\.json"):
        job_status(tmp_path)
    (tmp_path / "job.json").write_text('{"kind": "train", "argument": {}}')
    with pytest.raises(ValueError, match=r"'argument'\. Did you mean 'arguments'"):
        job_status(tmp_path)
    (tmp_path / "job.json").write_text("[]")
    with pytest.raises(ValueError, match="needs an object"):
        job_status(tmp_path)


def test_requests_are_consumed_once_and_a_stop_stays_visible(tmp_path: Path) -> None:
    assert not consume_control(tmp_path, "save")
    request(tmp_path, "save")
    request(tmp_path, "save")
    assert consume_control(tmp_path, "save")
    assert not consume_control(tmp_path, "save")
    request(tmp_path, "stop")
    assert stop_requested(tmp_path)
    assert consume_control(tmp_path, "stop")
    assert not consume_control(tmp_path, "stop")
    assert not stop_requested(tmp_path)
    assert is_stopping(tmp_path)
