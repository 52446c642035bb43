"""A run from its folder to a proven adapter, in this process: requests, checkpoints, what can go wrong."""

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_runs
import torch
from accelerate.state import AcceleratorState
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_runs import (
    INSTANCE_PROMPT,
    change,
    draw_photos,
    events_of,
    masked_datasets,
    run_command,
    train_here,
    write_run_folder,
)

from dreamspace.jobs.control import request
from dreamspace.jobs.job import Job
from dreamspace.jobs.new_run import extend_run
from dreamspace.models.lora import Lora
from dreamspace.run_folder import WEIGHTS_NAME, weights_file
from dreamspace.training import ranks as ranks_module
from dreamspace.training import run as run_module
from dreamspace.training import saving
from dreamspace.training.checkpoints import save_optimizer
from dreamspace.training.proof import grey_levels_apart
from dreamspace.training.ranks import consume_requests

QUICK = tiny_runs.QUICK | {"max_train_steps": 4, "checkpoint_step_interval": 2}
RUNAWAY = {"learning_rate": 10, "adam_weight_decay": 1e30}


@pytest.fixture
def run_dir(tmp_path: Path, tiny_model: Path, photos: Path) -> Path:
    """A new quick run on 4 photos."""
    write_run_folder(tmp_path / "run", tiny_model, photos, **QUICK)
    return tmp_path / "run"


def checkpoints(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def test_done_comes_last_with_an_adapter_even_without_validation_images(run_dir: Path) -> None:
    events = train_here(run_dir)
    assert (events[-1]["kind"], events[-1]["step"], events[-1]["path"]) == ("done", 4, "adapter")
    assert events[-2]["kind"] == "stage"
    assert (run_dir / "adapter" / WEIGHTS_NAME).exists()
    assert events_of(run_dir, "sample", "preview") == []
    assert [event["step"] for event in events if event["kind"] == "loss"] == [1, 2, 3, 4]
    assert all(event["prior_loss"] is None for event in events if event["kind"] == "loss")


def test_adapter_that_changes_nothing_is_not_done(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    write_run_folder(tmp_path, tiny_model, photos, **QUICK | {"learning_rate": 1e-12})
    with pytest.raises(
        ValueError,
        match=r"changes the image of 'a photo of a sks dog' by 0\.00 of 255 grey levels, which is nothing\. "
        "Train longer than 4 steps, or raise learning_rate",
    ):
        train_here(tmp_path)
    assert events_of(tmp_path, "done") == []
    assert not (tmp_path / "adapter").exists()


def test_prodigy_that_changes_nothing_is_not_told_to_raise_the_learning_rate(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    settings = QUICK | {"optimizer": "prodigy", "learning_rate": 1}
    write_run_folder(tmp_path, tiny_model, photos, **settings)
    with pytest.raises(ValueError, match=r"which is nothing\. Train longer than 4 steps\.$"):
        train_here(tmp_path)


def test_adapter_whose_weights_ran_away_is_not_done(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    write_run_folder(tmp_path, tiny_model, photos, **QUICK | RUNAWAY)
    with pytest.raises(ValueError, match=r"draws an empty image .* Lower learning_rate"):
        train_here(tmp_path)
    assert not (tmp_path / "adapter").exists()


def test_adapter_that_loads_as_another_is_our_fault(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = Lora.save

    def save_another(adapter: Lora, folder: Path) -> None:
        save(adapter, folder)
        if folder.name == ".adapter.new":
            weights = load_file(folder / WEIGHTS_NAME)
            metadata = {"format": "pt"}  # without alpha, it loads with alpha = rank
            save_file(weights, folder / WEIGHTS_NAME, metadata)

    monkeypatch.setattr(Lora, "save", save_another)
    with pytest.raises(RuntimeError, match="grey levels away from the trained one's"):
        train_here(run_dir)
    assert not (run_dir / "adapter").exists()


def test_losses_that_turn_bad_end_the_run_with_advice(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    settings = RUNAWAY | {"max_train_steps": 40, "checkpoint_step_interval": 100}
    write_run_folder(tmp_path, tiny_model, photos, **QUICK | settings)
    with pytest.raises(ValueError, match=r"not a finite number for 20 steps .* Lower learning_rate"):
        train_here(tmp_path)
    assert events_of(tmp_path, "loss")[-1]["loss"] is None
    assert events_of(tmp_path, "checkpoint", "done") == []


def test_checkpoint_that_fails_is_absent_and_the_run_goes_on_from_the_one_before(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []

    def fail_second(optimizer: torch.optim.Optimizer, folder: Path) -> None:
        saved.append(folder)
        if len(saved) == 2:
            (folder / "optimizer.safetensors").write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save_optimizer(optimizer, folder)

    monkeypatch.setattr(saving, "save_optimizer", fail_second)
    with pytest.raises(OSError, match="No space left"):
        train_here(run_dir)
    assert [event["step"] for event in events_of(run_dir, "checkpoint")] == [2]
    assert (run_dir / "checkpoints" / "step-000002" / "state.json").exists()
    assert not (run_dir / "checkpoints" / "step-000004").exists()
    events = train_here(run_dir, resume=True)
    assert [event["step"] for event in events if event["kind"] == "loss"] == [3, 4]
    assert events[-1]["kind"] == "done"
    assert checkpoints(run_dir) == ["step-000002", "step-000004"]


Usage = namedtuple("Usage", "total used free")


def test_nearly_full_disk_is_refused_before_the_first_step(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 5_000_000, 5_000_000))
    with pytest.raises(ValueError, match=r"has 5 MB free and a checkpoint needs 1\d MB\. Free some space"):
        train_here(run_dir)
    assert events_of(run_dir, "loss") == []


def test_disk_that_fills_up_keeps_the_checkpoints_before(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda path: Usage(10**9, 0, 0 if (run_dir / "checkpoints" / "step-000002").exists() else 10**9),
    )
    with pytest.raises(ValueError, match="Free some space and resume; earlier checkpoints are kept"):
        train_here(run_dir)
    monkeypatch.undo()
    assert checkpoints(run_dir) == ["step-000002"]
    assert train_here(run_dir, resume=True)[-1]["kind"] == "done"


@pytest.mark.parametrize(("step", "saved"), [(1, [1, 2, 4]), (2, [2, 4])], ids=["between", "when due"])
def test_requests_to_save_and_to_sample_are_obeyed_once(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, step: int, saved: list[int]
) -> None:
    change(run_dir / "config.json", validation_disable=False, validation_step_interval=2)
    take_step = run_module.TrainingStep.__call__

    def ask(training_step: run_module.TrainingStep, index: int, learning_rate: float) -> Any:
        if index + 1 == step:
            request(run_dir, "save")
            request(run_dir, "sample")
        return take_step(training_step, index, learning_rate)

    monkeypatch.setattr(run_module.TrainingStep, "__call__", ask)
    events = train_here(run_dir)
    assert [event["step"] for event in events if event["kind"] == "checkpoint"] == saved
    assert [event["step"] for event in events if event["kind"] == "sample"] == [0, *saved]
    stages = [event["name"] for event in events if event["kind"] == "stage"]
    assert stages[-3:] == ["training", "validating", "saving"]
    steps = [event["step"] for event in events if event["kind"] in ("loss", "checkpoint")]
    assert steps == sorted(steps), "what is asked for comes after the losses up to it"


def test_ranks_agree_on_all_requests_by_one_reduction_on_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reduced = []

    def all_reduce(flags: torch.Tensor, group: str) -> None:
        reduced.append((flags.tolist(), flags.device.type, group))
        flags += torch.tensor([1, 0, 0])  # as if another rank were the main process

    monkeypatch.setattr(ranks_module, "host_group", lambda: "on the host")
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    ranks = SimpleNamespace(is_main_process=True, num_processes=2, device="meta")
    request(tmp_path, "save")
    assert consume_requests(ranks, tmp_path) == {"stop", "save"}
    assert reduced == [([0, 0, 1], "cpu", "on the host")]
    alone = SimpleNamespace(is_main_process=True, num_processes=1)
    request(tmp_path, "sample")
    assert consume_requests(alone, tmp_path) == {"sample"}
    assert consume_requests(alone, tmp_path) == set()


def test_request_to_stop_saves_and_the_run_can_be_resumed(run_dir: Path) -> None:
    request(run_dir, "stop")
    events = train_here(run_dir)
    assert (events[-1]["kind"], events[-1]["step"]) == ("stopped", 0), "asked before anything was trained"
    assert [event["kind"] for event in events] == ["stopped"]
    assert train_here(run_dir, resume=True)[-1]["kind"] == "done"


@pytest.mark.parametrize("step", [2, 4], ids=["on the way", "at the end"])
def test_request_to_stop_cuts_validation_short_and_resuming_draws_the_rest(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    settings = {"validation_disable": False, "validation_step_interval": 2}
    # A batch of each size, and a request may come between the two.
    write_run_folder(tmp_path, tiny_model, photos, **QUICK | settings | {"validation_resolution": "64,96x32"})
    images = run_module.Validator.images

    def stop_at_first(validator: run_module.Validator, *arguments: Any) -> Any:
        if events_of(tmp_path, "stage")[-1]["message"].endswith(f"at step {step}."):
            request(tmp_path, "stop")
        return images(validator, *arguments)

    monkeypatch.setattr(run_module.Validator, "images", stop_at_first)
    events = train_here(tmp_path)
    drawn = [event["step"] for event in events if event["kind"] == "sample"]
    assert drawn == ([0, 0, 2] if step == 2 else [0, 0, 2, 2, 4]), "an image of each size"
    assert (events[-1]["kind"], events[-1]["step"]) == ("stopped", step)
    monkeypatch.undo()
    events = train_here(tmp_path, resume=True)
    drawn = [event["step"] for event in events if event["kind"] == "sample"]
    assert drawn == ([2, 2, 4, 4] if step == 2 else [4, 4])
    assert events[-1]["kind"] == "done"


def test_resumed_run_draws_the_images_that_a_kill_cost(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    write_run_folder(tmp_path, tiny_model, photos, **QUICK | {"validation_disable": False})
    train_here(tmp_path)
    image = tmp_path / "validation" / "step-000004" / "0.png"
    content = image.read_bytes()
    image.unlink()
    shutil.rmtree(tmp_path / "adapter")
    events = train_here(tmp_path, resume=True)
    assert [event["kind"] for event in events if event["kind"] in ("loss", "sample", "done")] == [
        "sample",
        "done",
    ]
    assert image.read_bytes() == content
    assert (tmp_path / "adapter" / WEIGHTS_NAME).exists()


def test_photos_that_changed_since_are_a_warning(tiny_model: Path, tmp_path: Path) -> None:
    folder = draw_photos(tmp_path / "photos", 3)
    write_run_folder(tmp_path, tiny_model, folder, **QUICK)
    train_here(tmp_path)
    assert events_of(tmp_path, "warning") == []
    draw_photos(folder, 1, first=5)
    train_here(tmp_path, resume=True)
    (warning,) = events_of(tmp_path, "warning")
    assert "are others than when this run was stopped" in warning["message"]


EMA = {"use_ema": True, "ema_decay": 0.5, "validation_disable": False}
ROLLOUT = {
    "scheduled_sampling_max_step_offset": 4,
    "scheduled_sampling_probability": 1.0,
    "scheduled_sampling_ramp_steps": 4,
}


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw_bf16", **EMA},
        {"optimizer": "adamw_schedulefree"},
        {"optimizer": "bnb-adamw8bit", "lora_rank": 64},
        {"optimizer": "lion", **ROLLOUT},
        {"optimizer": "adafactor", "stratified_timesteps": True, "caption_dropout_probability": 0.5},
        {"optimizer": "prodigy", "learning_rate": 10.0, "lora_alpha": 3000, "loss_type": "huber"},
        {"use_dora": True},
        {"lora_type": "lycoris", "lycoris_config": {"algo": "lokr", "rank_dropout": 0.1}, **EMA},
        {"lora_type": "lycoris", "lycoris_config": {"algo": "dylora", "linear_dim": 8}},
        {"lora_type": "lycoris", "lycoris_config": {"algo": "full"}},
        {"model_type": "full", "learning_rate": 1e-3, **EMA},
    ],
    ids=lambda settings: "-".join(str(value) for value in list(settings.values())[:2]),
)
def test_resumed_run_equals_the_uninterrupted_one_to_the_last_bit(
    settings: dict[str, Any], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = masked_datasets(tmp_path)
    given = QUICK | {"lr_scheduler": "constant", "max_train_steps": 6, "masked_prior_weight": 0.5} | settings
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for folder in (whole, resumed):
        write_run_folder(folder, tiny_model, datasets, **given)
    train_here(whole)
    take_step = run_module.TrainingStep.__call__

    def stop_at_four(step: run_module.TrainingStep, index: int, learning_rate: float) -> Any:
        if index == 3:
            request(resumed, "stop")
        return take_step(step, index, learning_rate)

    monkeypatch.setattr(run_module.TrainingStep, "__call__", stop_at_four)
    assert train_here(resumed)[-1]["kind"] == "stopped"
    monkeypatch.undo()
    assert train_here(resumed, resume=True)[-1]["kind"] == "done"
    assert checkpoints(resumed) == ["step-000002", "step-000004", "step-000006"]
    losses = [
        {(e["step"], e["loss"], e["grad_norm"]) for e in events_of(run, "loss")} for run in (whole, resumed)
    ]
    assert losses[0] == losses[1]
    names = ["adapter", "adapter-ema"] if "use_ema" in settings else ["adapter"]
    for name in names:
        ours, expected = (load_file(weights_file(run / name)) for run in (resumed, whole))
        assert all(torch.equal(ours[key], expected[key]) for key in expected)
    last = [run / "checkpoints" / "step-000006" for run in (resumed, whole)]
    files = [[folder / "optimizer.safetensors" for folder in last]]
    if "use_ema" in settings:
        files.append([weights_file(folder / "ema") for folder in last])
    for pair in files:
        ours, expected = map(load_file, pair)
        assert all(torch.equal(ours[key], expected[key]) for key in expected)


def test_resume_with_another_optimizer_is_refused(run_dir: Path) -> None:
    train_here(run_dir)
    change(run_dir / "config.json", optimizer="lion")
    with pytest.raises(
        ValueError, match=r"trained with optimizer 'adamw', and now it is 'lion'\. Set it back"
    ):
        train_here(run_dir, resume=True)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("none", ["trained"]),
        ("ema_only", ["ema"]),
        ("comparison", ["trained", "ema"]),
    ],
)
def test_images_are_drawn_with_the_weights_that_are_asked_for(
    tiny_model: Path, photos: Path, tmp_path: Path, shown: str, expected: list[str]
) -> None:
    write_run_folder(tmp_path, tiny_model, photos, **QUICK | EMA, ema_validation=shown)
    train_here(tmp_path)
    samples = {event["weights"]: event["path"] for event in events_of(tmp_path, "sample")}
    assert list(samples) == ["base", *expected]
    pictures = [(tmp_path / path).read_bytes() for path in samples.values()]
    assert len(set(pictures)) == len(pictures)
    average = load_file(tmp_path / "adapter-ema" / WEIGHTS_NAME)
    trained = load_file(tmp_path / "adapter" / WEIGHTS_NAME)
    assert average.keys() == trained.keys()
    assert any(not torch.equal(average[name], trained[name]) for name in average)


def test_adapter_of_the_average_draws_its_validation_image(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    write_run_folder(tmp_path, tiny_model, photos, **QUICK | EMA)
    train_here(tmp_path)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(tmp_path / "adapter-ema")
    size = {"width": 64, "height": 64, "num_inference_steps": 2, "guidance_scale": 5.0}
    drawn = pipeline(INSTANCE_PROMPT, **size, generator=torch.Generator().manual_seed(42)).images[0]
    with Image.open(tmp_path / "validation" / "step-000004" / "0-ema.png") as shown:
        assert grey_levels_apart(drawn, shown) < 0.1
    with Image.open(tmp_path / "validation" / "step-000004" / "0.png") as trained:
        assert grey_levels_apart(drawn, trained) > 0.2


def test_average_that_changes_nothing_is_a_warning_beside_a_proven_adapter(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    settings = {"use_ema": True, "ema_decay": 1 - 1e-9, "learning_rate": 0.01}
    write_run_folder(tmp_path, tiny_model, photos, **QUICK | settings)
    events = train_here(tmp_path)
    assert events[-1]["kind"] == "done"
    (warning,) = events_of(tmp_path, "warning")
    assert warning["message"].startswith(
        "The moving average changes the image of 'a photo of a sks dog' by 0."
    )
    assert warning["message"].endswith("Train longer than 4 steps, or lower ema_decay.")
    assert (tmp_path / "adapter" / WEIGHTS_NAME).is_file()
    assert list(tmp_path.glob("*adapter-ema*")) == []


def test_average_is_kept_in_every_checkpoint_and_one_without_cannot_be_resumed(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    write_run_folder(tmp_path, tiny_model, photos, **QUICK | EMA, checkpoints_total_limit=1)
    train_here(tmp_path)
    averages = [tmp_path / "checkpoints" / name / "ema" / WEIGHTS_NAME for name in checkpoints(tmp_path)]
    assert len(averages) == 2
    assert all(path.is_file() for path in averages)
    last, final = load_file(averages[-1]), load_file(tmp_path / "adapter-ema" / WEIGHTS_NAME)
    assert all(torch.equal(last[name], final[name]) for name in last)
    averages[-1].unlink()
    with pytest.raises(ValueError, match=r"step-000004 holds no moving average\. Set use_ema to false"):
        train_here(tmp_path, resume=True)


def test_mixture_is_announced_before_the_model_is_loaded(
    tiny_model: Path, photos: Path, class_photos: Path, tmp_path: Path
) -> None:
    write_run_folder(tmp_path, tiny_model, photos, class_photos, **QUICK)
    change(tmp_path / "multidatabackend.json", repeats=2)
    events = train_here(tmp_path)
    kinds = [event["kind"] if event["kind"] != "stage" else event["name"] for event in events]
    assert kinds.index("mixture") < kinds.index("loading") < kinds.index("loss")
    (mixture,) = events_of(tmp_path, "mixture")
    assert mixture["datasets"] == {"subject": 0.75, "prior": 0.25}
    assert (mixture["num_instances"], mixture["num_prior"]) == (4, 4)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rescale_betas_zero_snr": True}, "needs a model of v-prediction"),
        ({"scheduled_sampling_reflexflow": True}, "is for models of flow matching"),
        ({"optimizer": "prodigy"}, "Set learning_rate to 1"),
        ({"validation_resolution": "100"}, "Try 96"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_photos_are_read(
    tiny_model: Path, photos: Path, tmp_path: Path, settings: dict[str, Any], sentence: str
) -> None:
    write_run_folder(tmp_path, tiny_model, photos, **QUICK | settings)
    with pytest.raises(ValueError, match=sentence):
        train_here(tmp_path)
    assert events_of(tmp_path, "stage") == []


def test_bf16_trains_and_its_adapter_proves_itself(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    write_run_folder(tmp_path, tiny_model, photos, **QUICK | {"mixed_precision": "bf16"})
    AcceleratorState._reset_state(reset_partial_state=True)  # accelerate keeps one precision for a process
    try:
        assert train_here(tmp_path)[-1]["kind"] == "done"
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU can do fp16")
def test_fp16_without_a_gpu_is_refused(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    write_run_folder(tmp_path, tiny_model, photos, **QUICK | {"mixed_precision": "fp16"})
    with pytest.raises(ValueError, match="'fp16' needs an NVIDIA GPU, and this machine has none"):
        train_here(tmp_path)


def test_finished_run_goes_on_to_more_steps_as_if_it_had_been_longer(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    whole, longer = tmp_path / "whole", tmp_path / "longer"
    given = QUICK | {"lr_scheduler": "constant"}
    write_run_folder(whole, tiny_model, photos, **given | {"max_train_steps": 6})
    write_run_folder(longer, tiny_model, photos, **given | {"max_train_steps": 3})
    train_here(whole)
    train_here(longer)
    submitted(longer)
    extend_run(longer, 6, restart_schedule=False)
    assert train_here(longer, resume=True)[-1]["kind"] == "done"
    ours, expected = (load_file(run / "adapter" / WEIGHTS_NAME) for run in (longer, whole))
    assert all(torch.equal(ours[key], expected[key]) for key in expected)


def test_continued_run_may_begin_its_schedule_anew(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    settings = QUICK | {"lr_scheduler": "linear", "learning_rate": 0.03, "lr_warmup_steps": 0}
    settings |= {"max_train_steps": 3}
    write_run_folder(tmp_path, tiny_model, photos, **settings)
    train_here(tmp_path)
    submitted(tmp_path)
    extend_run(tmp_path, 6, restart_schedule=True)
    train_here(tmp_path, resume=True)
    rates = {event["step"]: event["learning_rate"] for event in events_of(tmp_path, "loss")}
    assert rates == pytest.approx(dict(enumerate([0.03, 0.02, 0.01] * 2, start=1)))
    with pytest.raises(ValueError, match=r"--steps must be above the 6 steps that the run has, got 6\."):
        extend_run(tmp_path, 6, restart_schedule=False)


def submitted(run_dir: Path) -> None:
    """Let the folder look as after the job that trained it."""
    Job("train", {}).write(run_dir)


def test_run_begins_with_an_adapter_that_is_given(
    tiny_model: Path, photos: Path, finished_run: Path, tmp_path: Path
) -> None:
    adapter = finished_run / "adapter"
    settings = QUICK | {"max_train_steps": 1, "learning_rate": 1e-9, "lr_scheduler": "constant"}
    write_run_folder(tmp_path, tiny_model, photos, **settings, init_lora=str(adapter / WEIGHTS_NAME))
    train_here(tmp_path)
    ours, given = (load_file(folder / WEIGHTS_NAME) for folder in (tmp_path / "adapter", adapter))
    for name, weight in given.items():
        torch.testing.assert_close(ours[name], weight, rtol=0, atol=1e-7)
    write_run_folder(
        tmp_path / "other",
        tiny_model,
        photos,
        **settings,
        lora_alpha=4,
        init_lora=str(adapter / WEIGHTS_NAME),
    )
    with pytest.raises(
        ValueError, match=r"has alpha 3, and this run's is 4\. Set lora_alpha to the adapter's"
    ):
        train_here(tmp_path / "other")


def test_full_model_trains_and_draws_in_half_precision(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    settings = QUICK | {"model_type": "full", "mixed_precision": "bf16", "learning_rate": 1e-3}
    files = write_run_folder(tmp_path, tiny_model, photos, **settings | {"validation_disable": False})
    result = run_command("train", *files, "--run", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    trained = load_file(weights_file(tmp_path / "run" / "adapter"))
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
