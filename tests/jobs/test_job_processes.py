"""Jobs through real processes: launcher, supervisor, worker edge, and signals."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from conftest import Jobs

from dreamspace.jobs import launcher
from dreamspace.jobs.control import is_stopping, request
from dreamspace.jobs.job import Ended, Job, is_live
from dreamspace.jobs.launcher import follow, stop
from dreamspace.jobs.log import log_tail
from dreamspace.jobs.process import ProcessIdentity, is_alive
from dreamspace.jobs.workspace import job_status


def seqs(jobs: Jobs, job_dir: Path) -> list[int]:
    return [event["seq"] for event in jobs.events(job_dir)]


def start_python(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": f"{Path(__file__).parents[2]}:{Path(__file__).parent}"},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def test_a_job_runs_to_done_and_follow_yields_every_event(jobs: Jobs) -> None:
    job_dir = jobs.submit("dog", "count", {"num_steps": 3})
    events = list(follow(job_dir))
    assert [event["kind"] for event in events] == ["stage", "progress", "progress", "progress", "done"]
    assert events[0]["name"] == "loading"
    assert events == jobs.events(job_dir)
    status = job_status(job_dir)
    assert (status.status, status.step, status.exit_status) == ("done", 3, 0)
    ended = Ended.read(job_dir)
    assert ended is not None
    assert (ended.exit_status, ended.signal, ended.reason) == (0, None, "exited")


def test_a_value_error_fails_with_one_line_and_exit_status_2(jobs: Jobs) -> None:
    job_dir = jobs.submit("dog", "refuse")
    status = jobs.wait_for_end(job_dir)
    assert (status.status, status.error, status.exit_status) == ("failed", "ValueError", 2)
    assert status.message == "There are no photos in\nthe folder. Add some."
    assert "fake_jobs.py" in jobs.events(job_dir)[-1]["traceback"]
    assert log_tail(job_dir) == "There are no photos in the folder. Add some.\n"
    assert Ended.read(job_dir).exit_status == 2


@pytest.mark.parametrize(
    ("kind", "error", "exit_status", "message"),
    [
        ("break_down", "KeyError", 1, "our own mistake"),
        ("run_out_of_memory", "OutOfMemoryError", 2, "CUDA out of memory"),
        ("fill_the_disk", "DiskFullError", 2, "No space left on device: 'checkpoint.safetensors'"),
        ("say_nothing", "AssertionError", 1, "ended without saying so"),
        ("cuont", "ValueError", 2, "Did you mean 'count'?"),
    ],
)
def test_every_failure_names_its_cause(
    jobs: Jobs, kind: str, error: str, exit_status: int, message: str
) -> None:
    status = jobs.wait_for_end(jobs.submit("dog", kind))
    assert (status.status, status.error, status.exit_status) == ("failed", error, exit_status)
    assert message in status.message
    assert bool(status.hint) == (error in ("OutOfMemoryError", "DiskFullError"))


def test_a_worker_that_vanishes_is_crashed_and_takes_its_children_along(jobs: Jobs) -> None:
    job_dir = jobs.submit("dog", "vanish")
    status = jobs.wait_for_end(job_dir)
    assert (status.status, status.step, status.exit_status) == ("crashed", 2, 1)
    assert "exit status 7" in status.message
    assert log_tail(job_dir) == "last words\n"
    assert jobs.is_gone(int((job_dir / "child_pid").read_text()))


def test_sigkill_of_the_worker_is_a_crash_that_knows_its_step_and_can_be_resumed(jobs: Jobs) -> None:
    job_dir = jobs.submit("dog", "count", {"num_steps": 1000, "step_seconds": 0.02})
    jobs.wait_for_step(job_dir, 3)
    os.kill(jobs.record(job_dir).worker.pid, signal.SIGKILL)
    status = jobs.wait_for_end(job_dir)
    assert status.status == "crashed"
    assert status.step >= 3
    assert f"step {status.step}" in status.message
    assert Ended.read(job_dir).signal == signal.SIGKILL

    created = Job.read(job_dir).created
    with open(job_dir / "events.jsonl", "ab") as file:
        file.write(b'{"seq":')  # As a kill in the middle of a write leaves it.
    jobs.submit("dog", "count", {"num_steps": status.step + 5})
    assert jobs.wait_for_end(job_dir).status == "done"
    assert seqs(jobs, job_dir) == list(range(len(seqs(jobs, job_dir))))
    steps = [event["step"] for event in jobs.events(job_dir) if event["kind"] == "progress"]
    assert steps[-1] == status.step + 5
    assert Job.read(job_dir).created == created


def test_sigkill_of_the_supervisor_ends_the_worker_and_frees_the_lock(jobs: Jobs) -> None:
    job_dir = jobs.submit("dog", "ignore_everything")
    jobs.wait_for_step(job_dir)
    record = jobs.record(job_dir)
    os.kill(record.supervisor.pid, signal.SIGKILL)
    jobs.wait_until(lambda: jobs.is_gone(record.worker.pid), timeout_seconds=20)
    status = jobs.wait_for_end(job_dir)
    assert status.status == "crashed"
    assert "supervisor was killed" in status.message
    assert jobs.wait_for_end(jobs.submit("cat", "count")).status == "done"


def test_a_worker_that_outlives_its_killed_supervisor_keeps_the_next_job_waiting(jobs: Jobs) -> None:
    job_dir = jobs.submit("dog", "count")
    jobs.wait_for_end(job_dir)
    code = f"""
        import pathlib, time
        from dreamspace.jobs.lock import hold_workers_lock
        hold_workers_lock(pathlib.Path({str(jobs.root.parent / "lock" / "workers.lock")!r}))
        print("held", flush=True)
        time.sleep(600)
    """
    holder = start_python(code)
    assert holder.stdout.readline() == b"held\n"
    waiting = jobs.submit("cat", "count")
    jobs.wait_until(lambda: "a job that was killed" in job_status(waiting).message)
    holder.kill()
    holder.communicate()
    assert jobs.wait_for_end(waiting).status == "done"


def test_a_job_goes_on_when_the_app_that_submitted_it_is_killed(jobs: Jobs) -> None:
    job_dir = jobs.root / "dog"
    code = f"""
        import pathlib, time
        from dreamspace.jobs.launcher import submit
        job_dir = pathlib.Path({str(job_dir)!r})
        submit(job_dir, "wait_for_file", {{}}, supervisor_module="fake_supervisor")
        time.sleep(600)
    """
    app = start_python(code)
    jobs.wait_until(lambda: (job_dir / "job.json").exists() and job_status(job_dir).stage == "loading")
    os.killpg(app.pid, signal.SIGKILL)
    app.communicate()
    (job_dir / "go").touch()
    assert jobs.wait_for_end(job_dir).status == "done"


def test_a_supervisor_that_has_ended_is_reaped(jobs: Jobs) -> None:
    job_dir = jobs.submit("dog", "count")
    pid = jobs.record(job_dir).supervisor.pid
    jobs.wait_for_end(job_dir)
    jobs.wait_until(lambda: not psutil.pid_exists(pid))


def test_stop_is_obeyed_by_the_worker_and_the_job_can_go_on(jobs: Jobs) -> None:
    job_dir = jobs.submit("dog", "count", {"num_steps": 100_000, "step_seconds": 0.05})
    jobs.wait_for_step(job_dir, 2)
    stop(job_dir)
    assert job_status(job_dir).status in ("stopping", "stopped")
    status = jobs.wait_for_end(job_dir)
    assert (status.status, status.exit_status) == ("stopped", 0)
    assert Ended.read(job_dir).exit_status == 0
    jobs.submit("dog", "count", {"num_steps": status.step + 2})
    assert jobs.wait_for_end(job_dir).status == "done"
    kinds = [event["kind"] for event in jobs.events(job_dir)]
    assert (kinds.count("stopped"), kinds.count("done")) == (1, 1)
    assert seqs(jobs, job_dir) == list(range(len(kinds)))


def test_sigterm_of_the_supervisor_is_a_request_to_stop(jobs: Jobs) -> None:
    job_dir = jobs.submit("dog", "count", {"num_steps": 100_000, "step_seconds": 0.05})
    jobs.wait_for_step(job_dir)
    os.kill(jobs.record(job_dir).supervisor.pid, signal.SIGTERM)
    assert jobs.wait_for_end(job_dir).status == "stopped"
    assert Ended.read(job_dir).reason == "stopped"


def test_a_worker_deaf_to_requests_gets_sigterm_after_its_grace_and_runs_its_finally(jobs: Jobs) -> None:
    job_dir = jobs.submit("dog", "hold_without_end", grace_seconds=0.2)
    jobs.wait_for_step(job_dir)
    stop(job_dir)
    status = jobs.wait_for_end(job_dir)
    assert (status.status, status.step) == ("stopped", 1)
    assert (job_dir / "cleaned_up").exists()


def test_a_worker_that_ignores_sigterm_too_is_killed(jobs: Jobs) -> None:
    job_dir = jobs.submit("dog", "ignore_everything", grace_seconds=0.2)
    jobs.wait_for_step(job_dir)
    stop(job_dir)
    assert job_status(job_dir).status == "stopping"
    status = jobs.wait_for_end(job_dir)
    assert status.status == "stopped"
    assert status.step >= 1
    assert jobs.events(job_dir)[-1]["step"] == status.step
    assert Ended.read(job_dir).signal == signal.SIGKILL


def test_a_deadline_stops_the_job_politely_and_says_so(jobs: Jobs) -> None:
    job_dir = jobs.submit("dog", "count", {"num_steps": 100_000, "step_seconds": 0.05}, deadline_seconds=1.5)
    status = jobs.wait_for_end(job_dir)
    assert status.status == "stopped"
    assert "deadline of 1.5 seconds" in status.message
    assert Ended.read(job_dir).exit_status == 0


def test_three_jobs_wait_for_each_other_in_the_order_of_asking(jobs: Jobs) -> None:
    first = jobs.submit("first", "wait_for_file")
    jobs.wait_until(lambda: job_status(first).status == "running")
    second, third = jobs.submit("second", "count"), jobs.submit("third", "count")
    jobs.wait_until(lambda: job_status(second).waits_for == ("first",))
    jobs.wait_until(lambda: job_status(third).waits_for == ("first", "second"))
    assert job_status(third).status == "queued"
    assert jobs.events(third)[0]["name"] == "queued"
    (first / "go").touch()
    assert [jobs.wait_for_end(job).status for job in (first, second, third)] == ["done"] * 3
    began, ended = ({}, {})
    for job in (first, second, third):
        events = jobs.events(job)
        [began[job]] = [event["time"] for event in events if event.get("name") == "loading"]
        ended[job] = events[-1]["time"]
        assert seqs(jobs, job) == list(range(len(events)))
    assert ended[first] <= began[second]
    assert ended[second] <= began[third]
    messages = [event["message"] for event in jobs.events(third) if event.get("name") == "queued"]
    assert messages[0] == "Waiting for first, then second."
    assert len(messages) == len(set(messages))
    assert not list((jobs.root.parent / "lock").glob("[0-9]*"))


def test_a_queued_job_can_be_stopped_and_does_not_hold_up_the_next(jobs: Jobs) -> None:
    first = jobs.submit("first", "wait_for_file")
    second, third = jobs.submit("second", "count"), jobs.submit("third", "count")
    jobs.wait_until(lambda: job_status(third).waits_for == ("first", "second"))
    stop(second)
    assert jobs.wait_for_end(second).status == "stopped"
    assert Ended.read(second).exit_status is None
    jobs.wait_until(lambda: job_status(third).waits_for == ("first",))
    (first / "go").touch()
    assert jobs.wait_for_end(third).status == "done"


def test_a_killed_supervisor_leaves_the_queue(jobs: Jobs) -> None:
    first = jobs.submit("first", "wait_for_file")
    second, third = jobs.submit("second", "count"), jobs.submit("third", "count")
    jobs.wait_until(lambda: job_status(third).waits_for == ("first", "second"))
    os.kill(jobs.record(second).supervisor.pid, signal.SIGKILL)
    jobs.wait_until(lambda: job_status(third).waits_for == ("first",))
    assert job_status(second).status == "crashed"
    (first / "go").touch()
    assert jobs.wait_for_end(third).status == "done"


def test_a_job_that_needs_no_gpu_does_not_wait(jobs: Jobs) -> None:
    first = jobs.submit("first", "wait_for_file")
    jobs.wait_until(lambda: job_status(first).status == "running")
    assert jobs.wait_for_end(jobs.submit("second", "count", needs_gpu=False)).status == "done"
    assert job_status(first).status == "running"
    (first / "go").touch()
    assert jobs.wait_for_end(first).status == "done"


def test_a_live_job_is_not_submitted_twice(jobs: Jobs) -> None:
    job_dir = jobs.submit("dog", "wait_for_file")
    with pytest.raises(ValueError, match="dog is still waiting or running"):
        jobs.submit("dog", "count")
    assert Job.read(job_dir).kind == "wait_for_file"
    (job_dir / "go").touch()
    assert jobs.wait_for_end(job_dir).status == "done"


def test_a_new_submission_forgets_the_requests_to_the_last(jobs: Jobs) -> None:
    job_dir = jobs.submit("dog", "count")
    jobs.wait_for_end(job_dir)
    request(job_dir, "stop")
    request(job_dir, "save")
    jobs.submit("dog", "count", {"num_steps": 5})
    assert jobs.wait_for_end(job_dir).status == "done"
    assert not is_stopping(job_dir)


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    identity = ProcessIdentity.of(child.pid)
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert psutil.pid_exists(child.pid)
    assert not is_alive(identity)
    child.wait()


def test_a_later_process_of_the_same_pid_is_another_and_a_changed_clock_is_not() -> None:
    identity = ProcessIdentity.of(os.getpid())
    assert is_alive(identity)
    assert not is_alive(ProcessIdentity(os.getpid(), identity.create_time - 60, identity.boot_time))
    clock_was_set = ProcessIdentity(os.getpid(), identity.create_time - 3600, identity.boot_time - 3600)
    assert is_alive(clock_was_set)


def test_secrets_reach_the_worker_and_nothing_on_disk(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    token, password = "hf_CanaryOfTheUser0123456789", "correct horse battery"
    monkeypatch.setenv("HF_TOKEN", "hf_CanaryOfTheApp0123456789")
    job_dir = jobs.submit("dog", "leak", secrets={"HF_TOKEN": token, "HUB_PASSWORD": password})
    status = jobs.wait_for_end(job_dir)
    assert status.message == "401 for hf_*** and hf_***"
    assert (job_dir / "digest").read_text() == hashlib.sha256((token + password).encode()).hexdigest()
    files = [path for path in jobs.root.parent.rglob("*") if path.is_file()]
    assert {"log.txt", "events.jsonl", "job.json"} <= {path.name for path in files}
    for path in files:
        content = path.read_bytes()
        assert b"Canary" not in content, path
        assert password.encode() not in content, path
    with pytest.raises(ValueError, match="hold an access token"):
        jobs.submit("cat", "count", {"prompt": f"a photo of {password}"}, secrets={"HUB_PASSWORD": password})
    with pytest.raises(ValueError, match="hold an access token"):
        jobs.submit("cat", "count", {"hub_token": token})
    assert not (jobs.root / "cat").exists()


def test_the_apps_own_token_stays_in_the_app(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_CanaryOfTheApp0123456789")
    job_dir = jobs.submit("dog", "wait_for_file")
    jobs.wait_until(lambda: job_status(job_dir).stage == "loading")
    record = jobs.record(job_dir)
    for process in (record.supervisor, record.worker):
        assert "HF_TOKEN" not in psutil.Process(process.pid).environ()
    (job_dir / "go").touch()
    jobs.wait_for_end(job_dir)


def test_a_supervisor_that_cannot_start_says_why(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    (jobs.root.parent / "lock").touch()
    with pytest.raises(ValueError, match=r"lock cannot be made: File exists\. Set DREAMSPACE_LOCK_DIR"):
        jobs.submit("dog", "count")
    monkeypatch.setenv("DREAMSPACE_LOCK_DIR", str(jobs.root.parent / "other"))
    assert jobs.wait_for_end(jobs.submit("dog", "count")).status == "done"


def test_a_job_folder_that_cannot_be_made_is_refused(jobs: Jobs) -> None:
    (jobs.root / "dog").touch()
    with pytest.raises(ValueError, match=r"dog cannot be written: File exists\. Choose another"):
        jobs.submit("dog", "count")
    (jobs.root / "dog").unlink()


def test_a_disk_that_is_full_when_the_job_is_written_is_said_to_be(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(job: Job, job_dir: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Job, "write", write)
    with pytest.raises(ValueError, match=r"dog cannot be written: No space left on device\. .*free some"):
        jobs.submit("dog", "count")


def test_a_process_that_cannot_be_forked_is_not_called_a_folder_that_cannot_be_written(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def popen(*arguments: object, **options: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(launcher.subprocess, "Popen", popen)
    with pytest.raises(ValueError, match="No process can be started for dog: Resource temporarily"):
        jobs.submit("dog", "count")
    monkeypatch.undo()


def test_a_supervisor_that_hangs_is_ended_before_it_is_given_up(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hanging_supervisor.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(launcher, "START_TIMEOUT_SECONDS", 0.5)
    with pytest.raises(RuntimeError, match="supervisor of dog did not start"):
        launcher.submit(jobs.root / "dog", "count", {}, supervisor_module="hanging_supervisor")
    commands = [" ".join(process.cmdline()) for process in psutil.Process().children()]
    assert not any("hanging_supervisor" in command for command in commands)


def test_two_ranks_run_and_only_rank_0_writes_events(jobs: Jobs) -> None:
    job_dir = jobs.submit("dog", "report_rank", num_processes=2)
    assert jobs.wait_for_end(job_dir).status == "done"
    assert sorted(path.name for path in job_dir.glob("rank_*")) == ["rank_0_of_2", "rank_1_of_2"]
    messages = [event["message"] for event in jobs.events(job_dir) if event["kind"] == "warning"]
    assert messages == ["from rank 0"]


@pytest.mark.parametrize("end", ["forced stop", "killed supervisor"])
def test_no_rank_outlives_its_job(jobs: Jobs, end: str) -> None:
    job_dir = jobs.submit("dog", "ignore_everything", num_processes=2, grace_seconds=0.2)
    jobs.wait_until(lambda: len(list(job_dir.glob("pid_of_rank_*"))) == 2)
    jobs.wait_for_step(job_dir)
    pids = [int(path.read_text()) for path in job_dir.glob("pid_of_rank_*")]
    assert len({os.getsid(pid) for pid in pids}) == 2  # Each in a session of its own, out of killpg's reach.
    if end == "forced stop":
        stop(job_dir)
        assert jobs.wait_for_end(job_dir).status == "stopped"
    else:
        os.kill(jobs.record(job_dir).supervisor.pid, signal.SIGKILL)
        jobs.wait_until(lambda: all(map(jobs.is_gone, pids)), timeout_seconds=60)
        assert job_status(job_dir).status == "crashed"
    assert all(map(jobs.is_gone, pids))
    assert not is_live(job_dir)


def test_importing_the_package_and_the_worker_edge_is_light() -> None:
    code = (
        "import sys, dreamspace.worker, dreamspace.jobs.launcher, dreamspace.jobs.supervisor\n"
        "heavy = {'torch', 'gradio', 'numpy', 'huggingface_hub', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
