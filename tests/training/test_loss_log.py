"""Events of a step come a step later, and losses that stay bad end the run with what it was shown."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dreamspace.jobs.events import EventWriter, read_events
from dreamspace.training.loss_log import NON_FINITE_LIMIT, LossLog, StepReport


def report(step: int, loss: float = 0.5, grad_norm: float = 1.0) -> StepReport:
    values = [torch.tensor(value) for value in (loss, loss, float("nan"), grad_norm)]
    samples = [SimpleNamespace(path=Path("photos") / f"{name}.png") for name in "abbcdef"]
    return StepReport(step, *values, learning_rate=0.1, samples=samples)


def test_losses_are_written_a_step_late_and_what_is_not_finite_is_null(tmp_path: Path) -> None:
    log = LossLog(EventWriter(tmp_path), 0, 2)
    log.add(report(1, loss=float("inf")))
    assert read_events(tmp_path / "events.jsonl")[0] == []
    log.add(report(2))
    log.flush()
    log.flush()
    events = [event for event in read_events(tmp_path / "events.jsonl")[0] if event["kind"] == "loss"]
    assert [(event["step"], event["loss"], event["prior_loss"]) for event in events] == [
        (1, None, None),
        (2, 0.5, None),
    ]
    progress = read_events(tmp_path / "events.jsonl")[0][-1]
    assert (progress["kind"], progress["step"], progress["eta_seconds"]) == ("progress", 2, 0.0)


@pytest.mark.parametrize("bad", [{"loss": float("nan")}, {"grad_norm": float("inf")}])
def test_losses_that_stay_non_finite_end_the_run_with_advice(tmp_path: Path, bad: dict[str, float]) -> None:
    log = LossLog(EventWriter(tmp_path), 0, 1000)
    for step in range(1, NON_FINITE_LIMIT):
        log.add(report(step, **bad))
    log.add(report(NON_FINITE_LIMIT))  # a good one in between starts the count again
    for step in range(NON_FINITE_LIMIT + 1, 2 * NON_FINITE_LIMIT + 1):
        log.add(report(step, **bad))
    shown = r"which was shown a\.png, b\.png, c\.png, d\.png and 2 more"
    with pytest.raises(
        ValueError, match=rf"up to step {2 * NON_FINITE_LIMIT}, {shown}\. .* Lower learning_rate"
    ):
        log.flush()
