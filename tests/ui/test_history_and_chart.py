import math
from pathlib import Path

import pytest

from dreamspace.jobs.events import EventWriter, read_events
from dreamspace.ui import history
from dreamspace.ui.chart import downsampled, loss_chart, smoothed
from dreamspace.ui.history import Histories, Shot


def write_losses(events: EventWriter, steps: range, value: float) -> None:
    for step in steps:
        events.write("loss", step=step, loss=value)


def test_a_history_that_is_read_on_equals_one_read_at_once(tmp_path: Path) -> None:
    events, growing = EventWriter(tmp_path), Histories()
    for step in range(1, 60):
        events.write("stage", name="training", message="Training.")
        events.write("loss", step=step, loss=1 / step)
        events.write(
            "sample", step=step, prompt=f"p{step % 3}", seed=1, path=f"{step}.png", weights="trained"
        )
        if step % 7 == 0:
            growing.of(tmp_path)
    events.write("warning", message="Too dark", hint="Add light.")
    events.write("warning", message="Too dark", hint="Add light.")
    events.write("done", step=59)
    assert growing.of(tmp_path) == Histories().of(tmp_path)
    history = growing.of(tmp_path)
    assert [shot.prompt for shot in history.shots] == ["p1", "p2", "p0"]
    assert history.sampled_steps == list(range(1, 60))
    assert len(history.warnings) == 1
    assert history.final["kind"] == "done"


def test_the_average_stands_beside_what_the_adapter_draws_or_alone(tmp_path: Path) -> None:
    events = EventWriter(tmp_path)
    for step, weights in [(0, "base"), (100, "trained"), (100, "ema"), (200, "ema")]:
        path = f"{step}-{weights}.png"
        events.write("sample", step=step, prompt="a dog", seed=1, path=path, weights=weights)
    history = Histories().of(tmp_path)
    shown = {
        step: [event["path"] for event in history.shown(step, Shot("a dog", 1))]
        for step in (0, 100, 200, 300)
    }
    assert shown == {
        0: ["0-base.png"], 100: ["100-trained.png", "100-ema.png"], 200: ["200-ema.png"], 300: [],
    }  # fmt: skip
    assert history.shots == [Shot("a dog", 1)]
    assert history.sampled_steps == [0, 100, 200]


def test_steps_that_a_resumed_run_repeats_replace_what_came_after(tmp_path: Path) -> None:
    events, histories = EventWriter(tmp_path), Histories()
    write_losses(events, range(1, 151), 1.0)
    assert max(histories.of(tmp_path).losses) == 150
    events.write("failed", error="OSError", message="gone")
    events.write("stage", name="loading", message="Loading.")
    write_losses(events, range(101, 121), 0.5)
    history = histories.of(tmp_path)
    assert list(history.losses) == list(range(1, 121))
    assert history.losses[101]["loss"] == 0.5
    assert history.final is None


def test_a_folder_made_anew_under_the_same_name_has_a_history_of_its_own(tmp_path: Path) -> None:
    events, histories = EventWriter(tmp_path), Histories()
    write_losses(events, range(1, 50), 1.0)
    assert len(histories.of(tmp_path).losses) == 49
    (tmp_path / "events.jsonl").unlink()
    write_losses(EventWriter(tmp_path), range(1, 3), 2.0)
    assert [event["loss"] for event in histories.of(tmp_path).losses.values()] == [2.0, 2.0]


def test_each_log_is_parsed_once_however_many_jobs_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / str(number) for number in range(100)]
    for folder in folders:
        folder.mkdir()
        write_losses(EventWriter(folder), range(1, 3), 1.0)
    histories, offsets = Histories(), []
    monkeypatch.setattr(
        history, "read_events", lambda path, offset: offsets.append(offset) or read_events(path, offset)
    )
    for _ in range(2):
        for folder in folders:
            assert len(histories.of(folder).losses) == 2
    assert offsets[:100] == [0] * 100
    assert min(offsets[100:]) > 0


def test_downsampling_keeps_ends_order_and_peaks() -> None:
    points = [(float(x), math.sin(x / 200)) for x in range(5000)]
    points[1234] = (1234.0, 9.0)
    kept = downsampled(points, 300)
    assert len(kept) == 300
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert kept == sorted(kept)
    assert set(kept) <= set(points)
    assert points[1234] in kept
    assert downsampled(points[:300], 300) == points[:300]
    for count in (301, 302, 599, 601, 4001):
        assert len(downsampled(points[:count], 300)) == 300


def test_the_trend_of_a_constant_is_the_constant_from_its_first_step() -> None:
    assert all(math.isclose(y, 0.3) for _, y in smoothed([(x, 0.3) for x in range(40)], window=20))


def test_the_chart_shows_at_most_300_points_of_a_long_run_and_survives_odd_losses(tmp_path: Path) -> None:
    events = EventWriter(tmp_path)
    for step in range(1, 3001):
        loss = float("nan") if step == 700 else 1 + math.sin(step)
        events.write("loss", step=step, loss=loss, instance_loss=0.5, prior_loss=0.25)
    chart = str(loss_chart(Histories().of(tmp_path).losses, 4000))
    raw, trend = (part.split('"')[0] for part in chart.split(' d="')[1:])
    assert raw.count("L") == trend.count("L") == 299
    assert "nan" not in chart
    assert "4000" in chart
    assert "class images 0.2500" in chart
    assert loss_chart({}, 100) == ""
    zeros = {step: {"loss": 0.0, "instance_loss": None, "prior_loss": None} for step in (1, 2)}
    assert "<svg" in loss_chart(zeros, 2)
