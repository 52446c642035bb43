"""The events of a job, folded into what the page shows, read on from where the last look ended."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from dreamspace.jobs.events import EVENTS_FILE, FINAL_KINDS, Event, read_events


class Shot(NamedTuple):
    """What is drawn at one step after another, to compare: a prompt, from a seed, at a size in px.

    Logs that were written when all images had one size do not tell it.
    """

    prompt: str
    seed: int | None = None
    width: int | None = None
    height: int | None = None

    @classmethod
    def of(cls, event: Event) -> "Shot":
        """That of a `sample` or `preview` event."""
        return cls(event["prompt"], event.get("seed"), event.get("width"), event.get("height"))


@dataclass
class History:
    """What the events of a job say so far; one that was handed out does not change any more.

    Attributes:
        losses: the `loss` event of each step, in order; a resumed run's steps replace their earlier selves.
        samples: `sample` events by (step, shot, weights); the newest of each.
        images: the same events by path.
        previews: the newest `preview` event of each prompt index.
        checkpoints: steps that have one, in order.
        progress, stage, mixture, final: the last event of that kind (`final`: of this attempt), or None.
        warnings: `warning` events, each message once.
        scores: by kind (`clip_score`, `fidelity`, `eval_loss`) the events by step and weights or dataset,
            in order; those of a resumed run replace what came after.
    """

    losses: dict[int, Event] = field(default_factory=dict)
    samples: dict[tuple[int, Shot, str], Event] = field(default_factory=dict)
    images: dict[str, Event] = field(default_factory=dict)
    previews: dict[int, Event] = field(default_factory=dict)
    checkpoints: list[int] = field(default_factory=list)
    progress: Event | None = None
    stage: Event | None = None
    mixture: Event | None = None
    final: Event | None = None
    warnings: list[Event] = field(default_factory=list)
    scores: dict[str, dict[tuple[int, str | None], Event]] = field(default_factory=dict)

    def with_events(self, events: Sequence[Event]) -> "History":
        """This history and the events that follow."""
        history = replace(
            self,
            losses=dict(self.losses),
            samples=dict(self.samples),
            images=dict(self.images),
            previews=dict(self.previews),
            checkpoints=list(self.checkpoints),
            warnings=list(self.warnings),
            scores={kind: dict(found) for kind, found in self.scores.items()},
        )
        for event in events:
            history._add(event)
        return history

    def _add(self, event: Event) -> None:
        kind = event["kind"]
        if kind in FINAL_KINDS:
            self.final = event
        elif kind == "stage":
            self.stage, self.final = event, None
        elif kind == "loss":
            if self.losses and event["step"] <= next(reversed(self.losses)):
                self.losses = {step: e for step, e in self.losses.items() if step < event["step"]}
            self.losses[event["step"]] = event
        elif kind == "progress":
            self.progress = event
        elif kind == "sample":
            self.samples[event["step"], Shot.of(event), event["weights"]] = event
            self.images[event["path"]] = event
        elif kind == "preview":
            self.previews[event["index"]] = event
        elif kind == "checkpoint":
            self.checkpoints = sorted({*self.checkpoints, event["step"]})
        elif kind in ("clip_score", "fidelity", "eval_loss"):
            found = self.scores.get(kind, {})
            key = event["step"], event.get("weights") or event.get("dataset")
            kept = {at: e for at, e in found.items() if at[0] <= event["step"] and at != key}
            self.scores[kind] = {**kept, key: event}
        elif kind == "mixture":
            self.mixture = event
        elif kind == "warning" and event["message"] not in [w["message"] for w in self.warnings]:
            self.warnings.append(event)

    @property
    def shots(self) -> list[Shot]:
        """What has a sample, in the order in which it was first drawn, the images of a prompt together."""
        shots = dict.fromkeys(shot for _, shot, _ in self.samples)
        prompts = list(dict.fromkeys(shot.prompt for shot in shots))
        return sorted(shots, key=lambda shot: prompts.index(shot.prompt))

    def title(self, shot: Shot) -> str:
        """What tells a shot from others of its prompt, "seed 43, 96 x 64"; "" where there are none."""
        others = [other for other in self.shots if other.prompt == shot.prompt]
        words = [f"seed {shot.seed}"] if len({other.seed for other in others}) > 1 else []
        if len({other[2:] for other in others}) > 1:
            words.append(f"{shot.width} x {shot.height}")
        return ", ".join(words)

    @property
    def sampled_steps(self) -> list[int]:
        """The steps that have a sample, in order; 0 is the base model."""
        return sorted({step for step, _, _ in self.samples})

    def shown(self, step: int, shot: Shot) -> list[Event]:
        """The samples of a step to look at: what the adapter draws (or the base model), then its average.

        A run that draws only its moving average has that alone.
        """
        found = (self.samples.get((step, shot, weights)) for weights in ("base", "trained", "ema"))
        return [event for event in found if event is not None]


class Histories:
    """The histories of all jobs that were looked at; what is lost here is read again from disk."""

    def __init__(self) -> None:
        # Without a bound: a page looks at every run, and what it dropped would be parsed again at each tick.
        self._entries: dict[Path, tuple[History, int]] = {}
        self._lock = threading.Lock()

    def of(self, job_dir: Path) -> History:
        """The job's history up to its last complete event."""
        path = Path(job_dir) / EVENTS_FILE
        with self._lock:
            history, offset = self._entries.get(path, (History(), 0))
            if offset > _size(path):  # The folder was made anew under the same name.
                history, offset = History(), 0
            events, offset = read_events(path, offset)
            if events:  # Another visitor's thread may still read the former one.
                history = history.with_events(events)
            self._entries[path] = history, offset
            return history


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
