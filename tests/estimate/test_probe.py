"""A probe: two real steps, and what they took."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tiny_runs import QUICK, assert_refused, cropped_dataset, draw_photos, run_command, write_run_folder

from dreamspace.data.plan import PlannedDataset, StepPlan
from dreamspace.training.probe import largest_step

Shell = Callable[..., tuple[int, str, str]]


def test_probe_measures_two_steps_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMSPACE_HOME", str(tmp_path / "workspace"))
    photos = draw_photos(tmp_path / "photos", 4)
    for path, size in zip(sorted(photos.iterdir()), [(64, 64), (96, 64), (96, 64), (64, 64)], strict=True):
        with Image.open(path) as picture:
            picture.resize(size).save(path)
    datasets = [cropped_dataset(photos, crop=False, resolution=128)]
    files = write_run_folder(tmp_path / "files", Path("mini"), datasets, **QUICK)
    result = run_command("estimate", *files, "--probe", "--json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    probed = answer["probe"]
    assert sorted(probed["size_px"]) == [128, 192], "the largest of the photos' buckets"
    assert (probed["device"], probed["num_rows"]) == ("cpu", 2)
    assert 0 < probed["encoding_bytes"] <= probed["peak_bytes"] < 5 * max(answer["peaks_bytes"].values())
    assert probed["seconds_per_step"] > 0
    assert "Encoding photos" in result.stderr
    assert not list((tmp_path / "workspace" / "cache").iterdir()), "no latents, prompts or job of the probe"


def test_probe_that_fails_says_why(shell: Shell, tmp_path: Path) -> None:
    files = write_run_folder(tmp_path / "files", Path("mini"), tmp_path / "nowhere", **QUICK)
    status, output, _ = shell("estimate", *files, "--probe")
    assert status == 2
    assert f"'subject' has no folder {tmp_path / 'nowhere'}." in output.splitlines()[-1]


def test_probe_of_other_hardware_is_refused(shell: Shell) -> None:
    words = "--probe runs on this machine", "l4x1"
    assert_refused(shell("estimate", "--preset", "mini", "--probe", "--hardware", "l4x1"), *words)


def test_largest_step_has_the_most_pixels() -> None:
    small, large = PlannedDataset("small", ((64, 64),) * 4, 1), PlannedDataset("large", ((64, 128),) * 3, 1)
    plan = StepPlan([small, large], seed=0, step_rows=2)
    step = largest_step(plan, 20)
    assert (plan.size(step), len(plan.rows(step))) == ((64, 128), 2)
    assert step == min(s for s in range(20) if plan.size(s) == (64, 128) and len(plan.rows(s)) == 2)
