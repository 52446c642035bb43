"""The command line: what it writes, draws and prints."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_runs import assert_refused, change, events_of, pair

from dreamspace import cli, console, doctor
from dreamspace.commands import jobs
from dreamspace.config import RunConfig, load_datasets
from dreamspace.config.precision import PACKAGES, QUANTISED
from dreamspace.jobs.control import is_stopping
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.job import Job
from dreamspace.jobs.new_run import prior_folder
from dreamspace.jobs.workspace import Workspace

Shell = Callable[..., tuple[int, str, str]]


# What it writes


def test_short_form_writes_a_run_with_class_images_and_trains_it(
    shell: Shell, short: list, tiny_model: Path, tmp_path: Path
) -> None:
    settings = {
        "pretrained_model_name_or_path": tiny_model,
        "max_train_steps": 2,
        "validation_disable": "true",
        "validation_num_inference_steps": 2,
        "learning_rate": 0.02,
    }
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    result = shell(*short, "--token", "sks", "--class-images", "2", *sets)
    assert result[0] == 0, result
    config = RunConfig.load(tmp_path / "run" / "config.json")
    assert (config.token, config.class_word, config.num_class_images) == ("sks", "dog", 2)
    subject, prior = load_datasets(tmp_path / "run" / "multidatabackend.json")
    assert (subject.instance_prompt, prior.instance_prompt) == ("a photo of a sks dog", "a photo of a dog")
    assert prior.is_regularisation_data
    assert prior.instance_data_dir == prior_folder(Workspace(), str(tiny_model), "dog")
    assert len(list(prior.instance_data_dir.glob("*.png"))) == 2
    (mixture,) = events_of(tmp_path / "run", "mixture")
    assert (mixture["num_instances"], mixture["num_prior"]) == (4, 2)
    assert (subject.repeats, prior.repeats) == (0, 1), "every second row shows the subject"


def test_resolution_of_the_short_form_replaces_the_presets(
    shell: Shell, short: list, tiny_model: Path, tmp_path: Path
) -> None:
    options = ["--set", f"pretrained_model_name_or_path={tiny_model}", "--resolution", 100]
    assert_refused(
        shell(*short, *options), "Dataset 'subject': resolution must be a positive multiple", "100"
    )
    (subject,) = load_datasets(tmp_path / "run" / "multidatabackend.json")
    assert (subject.resolution, subject.resolution_type) == (100, "pixel")


def test_class_images_lie_in_the_runs_workspace_under_the_final_class_word(
    shell: Shell, photos: Path, tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path / "workspace")
    run_dir = workspace.runs / "run"
    shell(
        *("train", "--photos", photos, "--class-word", "dog", "--run", run_dir, "--class-images", 2),
        *("--set", "class_word=cat", "--set", "pretrained_model_name_or_path=a/b/c"),
    )
    _, prior = load_datasets(run_dir / "multidatabackend.json")
    assert prior.instance_prompt == "a photo of a cat"
    assert prior.instance_data_dir == workspace.priors / "a--b--c" / "cat"


@pytest.mark.parametrize("command", [["prior"], ["generate", "--adapter", "x"]])
def test_seed_that_no_run_could_have_is_refused(shell: Shell, command: list[str]) -> None:
    result = shell(*command, "--prompt", "x", "--out", "x", "--seed", 2**32)
    assert_refused(result, "--seed must be 0 to 4294967295, got 4294967296.")


@pytest.mark.parametrize(("model", "secrets"), [("owner/name", {"HF_TOKEN": "x"}), ("mini", {})])
def test_token_goes_to_jobs_that_may_download_their_model(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, secrets: dict[str, str]
) -> None:
    given: dict[str, dict[str, str]] = {}
    monkeypatch.setattr(jobs, "submit", lambda job_dir, kind, *_, **options: given.update({kind: options}))
    monkeypatch.setattr(jobs, "watch", lambda job_dir: 0)
    monkeypatch.setenv("HF_TOKEN", "x")
    change(files / "config.json", pretrained_model_name_or_path=model)
    commands = [
        pair(files, tmp_path),
        ["prior", "--model", model, "--prompt", "x", "--out", tmp_path / "out"],
        ["generate", "--run", tmp_path / "run", "--prompt", "x", "--out", tmp_path / "out"],
    ]
    for command in commands:
        assert cli.main([str(word) for word in command]) == 0
    assert sorted(given) == ["generate", "prior", "train"]
    assert [options["secrets"] for options in given.values()] == [secrets] * 3
    given.clear()
    adapter = ["--adapter", str(tmp_path), "--prompt", "x", "--out", str(tmp_path / "out")]
    assert cli.main(["generate", "--model", model, *adapter]) == 0
    assert given["generate"]["secrets"] == secrets


def test_pair_of_files_becomes_a_run_that_can_be_resumed_from_anywhere(
    shell: Shell, files: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    change(files / "multidatabackend.json", instance_data_dir=photos.name)
    assert shell(*pair(files, tmp_path), "--set", "seed=7")[0] == 0
    monkeypatch.chdir(tmp_path)
    assert RunConfig.load(tmp_path / "run" / "config.json").seed == 7
    assert load_datasets(tmp_path / "run" / "multidatabackend.json")[0].instance_data_dir == photos
    result = shell("train", "--run", "run", "--resume")
    assert result[0] == 0, result
    assert "Saving what was trained" in result[1]
    assert "step 1 of 3" not in result[1]


def test_prior_draws_into_a_folder(shell: Shell, tiny_model: Path, tmp_path: Path) -> None:
    command = ["prior", "--model", tiny_model, "--prompt", "a dog", "--count", "1", "--out", tmp_path / "out"]
    status, output, errors = shell(*command)
    assert (status, errors) == (0, "")
    assert "Drawing class images: 1 of 1." in output
    (image,) = (tmp_path / "out").iterdir()
    content = image.read_bytes()
    assert shell(*command)[0] == 0
    assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == [content]


# Watching


def new_job(job_dir: Path, *events: tuple[str, dict]) -> EventWriter:
    Job("train").write(job_dir)
    writer = EventWriter(job_dir)
    for kind, fields in events:
        writer.write(kind, **fields)
    return writer


def test_small_shares_of_the_mixture_are_not_rounded_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shares = {"subject": 0.996, "prior": 0.004, "never": 0.0}
    new_job(tmp_path, ("mixture", {"datasets": shares, "num_instances": 4, "num_prior": 1}))
    console.Printer(tmp_path).follow()
    assert "Rows: 99.6% subject, 0.4% prior, 0% never (4 photos, 1 class images)." in capsys.readouterr().out


def test_first_interrupt_asks_to_stop_and_watches_on_without_repeating(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = new_job(tmp_path, ("stage", {"name": "training", "message": "Training."}))
    follow = console.follow
    num_calls = 0

    def interrupted(job_dir: Path):
        nonlocal num_calls
        num_calls += 1
        yield from follow(job_dir)
        if num_calls == 1:
            raise KeyboardInterrupt

    def stop(job_dir: Path) -> None:
        console_stop(job_dir)
        writer.write("stopped", step=3, path="checkpoints/step-000003")

    console_stop = console.stop
    monkeypatch.setattr(console, "follow", interrupted)
    monkeypatch.setattr(console, "stop", stop)
    assert console.watch(tmp_path) == 0
    assert is_stopping(tmp_path)
    output, errors = capsys.readouterr()
    assert output.splitlines() == ["Training.", f"Stopped and saved: {tmp_path / 'checkpoints/step-000003'}"]
    assert "Press Ctrl-C again" in errors


def test_fault_of_ours_names_the_log_and_exits_with_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new_job(tmp_path, ("failed", {"error": "KeyError", "message": "our mistake", "hint": ""}))
    assert console.watch(tmp_path) == 1
    errors = capsys.readouterr().err
    assert errors == f"dreamspace: our mistake\nThe log is {tmp_path / 'log.txt'}.\n"


# The doctor


def test_doctor_prints_a_line_for_each_thing(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "_device", lambda: [doctor.Finding("device", True, "no GPU")])
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    monkeypatch.setattr(doctor, "MODEL_FOLDER", tmp_path)
    status, output, errors = shell("doctor")
    assert (status, errors) == (0, "")
    lines = dict(line.split(": ", 1) for line in output.splitlines())
    assert list(lines) == [
        "ok   python",
        "ok   torch",
        "no   no-such-package",
        "ok   memory",
        "ok   disk",
        "ok   device",
        "no   mini",
    ]
    assert "make setup" in lines["no   no-such-package"]


def test_doctor_gives_json_and_asks_torch_in_a_process_of_its_own(shell: Shell) -> None:
    status, output, _ = shell("doctor", "--json")
    assert status == 0
    findings = {finding["name"]: finding for finding in json.loads(output)}
    assert set(findings) >= {"python", "torch", "memory", "disk", "device", "precision", "mini"}
    assert findings["torch"]["works"] is True
    assert findings["device"]["works"] is True
    assert "trains" in findings["device"]["text"]


def test_doctor_says_which_precisions_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._precision("cpu", None).text == ", ".join(["no_change", *QUANTISED])
    old_gpu = doctor._precision("cuda", (8, 6))
    assert old_gpu.works
    assert old_gpu.text == (
        "no_change, int8-quanto, int4-quanto, int2-quanto, int8-torchao, int4-torchao, nf4-bnb; "
        "not fp8-quanto, on this device; not fp8-torchao, on this device"
    )
    monkeypatch.setitem(PACKAGES, "quanto", "no-such-package")
    without = doctor._precision("cuda", (9, 0))
    assert not without.works
    assert without.text == (
        "no_change, fp8-torchao, int8-torchao, int4-torchao, nf4-bnb; "
        "no-such-package is missing; run 'make setup'"
    )


def test_doctor_survives_a_torch_that_does_not_start(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "executable", shutil.which("false"))
    _, output, _ = shell("doctor")
    assert "no   device: torch does not start: exit status 1" in output
