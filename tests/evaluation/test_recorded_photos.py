"""Which photos a run held out is written down, so that no later look into their folder can get it wrong."""

import shutil
from pathlib import Path

import pytest
from tiny_runs import QUICK, cropped_dataset, draw_photos, events_of, write_run_folder

from dreamspace.config import read_datasets, save_datasets
from dreamspace.data.held_out import content_id, read_held_out
from dreamspace.evaluation.evaluate_job import prepared_evaluation
from dreamspace.files import read_json
from dreamspace.jobs.branch import branch_run
from dreamspace.jobs.events import EventWriter
from dreamspace.mini import MODEL_FOLDER
from dreamspace.run_folder import HELD_OUT_FILE
from tests.tiny_runs import train_here

SETTINGS = QUICK | {
    "max_train_steps": 2,
    "lr_warmup_steps": 0,
    "checkpoint_step_interval": 1,
    "pretrained_evaluation_model_name_or_path": str(MODEL_FOLDER / "clip"),
    "pretrained_similarity_model_name_or_path": "none",
    "evaluate_checkpoints": False,
    "held_out_photos": True,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with a run of seven photos, and these."""
    folder = tmp_path_factory.mktemp("recorded")
    photos = draw_photos(folder / "photos", 7)
    write_run_folder(folder / "runs" / "run", tiny_model, [cropped_dataset(photos)], **SETTINGS)
    assert train_here(folder / "runs" / "run")[-1]["kind"] == "done"
    return folder


@pytest.fixture
def run_dir(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, with photos of its own."""
    shutil.copytree(trained, tmp_path / "copy")
    run_dir = tmp_path / "copy" / "runs" / "run"
    (dataset,) = read_datasets(run_dir / "multidatabackend.json")
    photos = tmp_path / "copy" / "photos"
    save_datasets(
        [dataset.model_copy(update={"instance_data_dir": photos})], run_dir / "multidatabackend.json"
    )
    return run_dir


def photos_of(run_dir: Path) -> Path:
    return run_dir.parents[1] / "photos"


def held_out_names(run_dir: Path) -> list[str]:
    return events_of(run_dir, "mixture")[-1]["held_out"]


def evidence(run_dir: Path, tmp_path: Path) -> str:
    job_dir = tmp_path / "jobs" / "evaluate"
    job_dir.mkdir(parents=True, exist_ok=True)
    evaluation, _, _ = prepared_evaluation(job_dir, {"run_dir": str(run_dir)}, EventWriter(job_dir))
    return evaluation.judge.photos.evidence


def test_a_run_writes_down_the_contents_of_what_it_holds_out(run_dir: Path):
    (name,) = held_out_names(run_dir)
    assert read_json(run_dir / HELD_OUT_FILE) == [content_id(photos_of(run_dir) / name)]


def test_a_photo_that_was_trained_on_never_judges_as_held_out(run_dir: Path, tmp_path: Path):
    assert evidence(run_dir, tmp_path) == "held_out"
    (photos_of(run_dir) / held_out_names(run_dir)[0]).unlink()
    assert evidence(run_dir, tmp_path) == "weak"
    # An older run knows no better.
    (run_dir / HELD_OUT_FILE).unlink()
    assert evidence(run_dir, tmp_path) == "held_out"


@pytest.mark.parametrize("is_branch", [False, True])
def test_a_run_that_goes_on_holds_out_what_it_held_out_whatever_was_added(
    run_dir: Path, tmp_path: Path, is_branch: bool
):
    before = held_out_names(run_dir)
    draw_photos(photos_of(run_dir), 8, first=7)
    if is_branch:
        branch_run(run_dir.with_name("branch"), run_dir / "checkpoints" / "step-000001")
        run_dir = run_dir.with_name("branch")
    else:
        shutil.rmtree(run_dir / "checkpoints" / "step-000002")
    train_here(run_dir, resume=True)
    assert held_out_names(run_dir) == before
    assert events_of(run_dir, "mixture")[-1]["num_instances"] == 14
    # A run that begins with these photos chooses among all of them.
    shutil.rmtree(run_dir / "checkpoints")
    train_here(run_dir)
    assert len(held_out_names(run_dir)) == 3
    assert len(read_held_out(run_dir)) == 3


def test_a_run_that_held_out_none_is_not_judged_as_if_it_had(tmp_path: Path, tiny_model: Path):
    run_dir = tmp_path / "runs" / "run"
    photos = draw_photos(tmp_path / "photos", 5)
    write_run_folder(run_dir, tiny_model, [cropped_dataset(photos)], **SETTINGS)
    train_here(run_dir)
    draw_photos(photos, 1, first=5)
    assert evidence(run_dir, tmp_path) == "weak"


def test_a_broken_record_is_named(run_dir: Path):
    (run_dir / HELD_OUT_FILE).write_text('{"a": 1}')
    with pytest.raises(ValueError, match=r"held_out\.json must be a list of content ids"):
        read_held_out(run_dir)
