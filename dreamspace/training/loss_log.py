"""What a step leaves behind, and the events that tell of it a step later."""

import time
from dataclasses import dataclass

from torch import Tensor

from dreamspace.data.samples import Sample
from dreamspace.jobs.events import EventWriter

NON_FINITE_LIMIT = 20
"""Steps in a row without a finite loss and gradient; fp16 finds its scale within 16."""

_NUM_NAMED = 4


@dataclass
class StepReport:
    """What a step leaves behind on the device; read one step later, so that the host never waits for it.

    Attributes:
        step: counts from 1.
        loss, instance_loss, prior_loss, grad_norm: 0-d; a mean over no rows is NaN.
        samples: what this process was shown.
    """

    step: int
    loss: Tensor
    instance_loss: Tensor
    prior_loss: Tensor
    grad_norm: Tensor
    learning_rate: float
    samples: list[Sample]


class LossLog:
    """Writes `loss` and `progress` events, each a step late, and watches for losses that are not finite.

    Args:
        first_step: steps that were done before, by a run that is resumed.
        num_steps: steps of the whole run.
    """

    def __init__(self, events: EventWriter, first_step: int, num_steps: int) -> None:
        self.events, self.num_steps = events, num_steps
        self._pending: StepReport | None = None
        self._num_non_finite = 0
        self._first_step, self._started = first_step, time.monotonic()
        self._last_progress = 0.0

    def add(self, report: StepReport) -> None:
        """Write the report before this one."""
        self.flush()
        self._pending = report

    def flush(self) -> None:
        """Write the pending report, waiting for the device where it is not done yet.

        Raises:
            ValueError: if loss or gradient were not finite `NON_FINITE_LIMIT` steps in a row.
        """
        report, self._pending = self._pending, None
        if report is None:
            return
        self.events.write(
            "loss",
            step=report.step,
            loss=report.loss.item(),
            instance_loss=report.instance_loss.item(),
            prior_loss=report.prior_loss.item(),
            learning_rate=report.learning_rate,
            grad_norm=report.grad_norm.item(),
        )
        self._num_non_finite = (
            0 if report.loss.isfinite() and report.grad_norm.isfinite() else self._num_non_finite + 1
        )
        if self._num_non_finite >= NON_FINITE_LIMIT:
            raise ValueError(
                f"The loss or its gradient was not a finite number for {NON_FINITE_LIMIT} steps up to step "
                f"{report.step}, which was shown {_names(report.samples)}. Most likely the weights ran away "
                "or a number overflowed. Lower learning_rate, or set mixed_precision to 'no'; earlier "
                "checkpoints are kept."
            )
        now = time.monotonic()
        if now - self._last_progress > 0.5 or report.step == self.num_steps:
            rate = (report.step - self._first_step) / max(now - self._started, 1e-9)
            self.events.write(
                "progress",
                step=report.step,
                num_steps=self.num_steps,
                steps_per_second=round(rate, 3),
                eta_seconds=round((self.num_steps - report.step) / rate, 1),
            )
            self._last_progress = now


def _names(samples: list[Sample]) -> str:
    """The first photos by name."""
    names = list(dict.fromkeys(sample.path.name for sample in samples))
    more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return ", ".join(names[:_NUM_NAMED]) + more
