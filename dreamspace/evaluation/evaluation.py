"""Draws, scores and compares checkpoints; what is finished is kept, so that it can be gone on with."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from PIL import Image
from torch import Tensor, nn

from dreamspace.evaluation.figures import Figures
from dreamspace.evaluation.judge import Judge, Pictures, by_prompt
from dreamspace.evaluation.painter import Painter
from dreamspace.evaluation.plan import Drawing, EvaluationPlan, LeakKind
from dreamspace.evaluation.plots import Outcome
from dreamspace.evaluation.report import write_report
from dreamspace.evaluation.verdict import Candidate, Traits, Verdict, decide, standing
from dreamspace.files import read_json, replace_file, write_json
from dreamspace.jobs.events import EventWriter
from dreamspace.models.sampling import NOT_FINITE_HINT
from dreamspace.run_folder import EVALUATION_FILE, EVALUATION_FOLDER, weights_file

STRENGTHS = (0.5, 1.0, 1.5)
"""Of the recommended adapter, in the report's last grid; what has no strength is drawn as it is."""

NUM_STRENGTH_PROMPTS = 3
JPEG_QUALITY = 95
BASE = Candidate(None, "base")


@dataclass(frozen=True)
class Entrant:
    """A checkpoint, and where its weights lie."""

    candidate: Candidate
    folder: Path


class Loadable(Protocol):
    """What is needed of an adapter to compare its checkpoints; see `Adapter`."""

    def off(self) -> AbstractContextManager[nn.Module]: ...

    def at_strength(self, strength: float) -> AbstractContextManager[None]: ...

    def load(self, file: Path) -> None: ...


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of a run's checkpoints, or of one adapter.

    Attributes:
        adapter: into which each checkpoint is loaded in turn; its denoiser is the painter's.
        out: the run's folder, or another one for what comes of it.
        should_stop: asked after each batch of images.
        base: tells the base model from others; see `BaseModel.fingerprint`.
        strengths: at which the recommended adapter is drawn.
    """

    plan: EvaluationPlan
    painter: Painter
    judge: Judge
    adapter: Loadable
    out: Path
    events: EventWriter
    should_stop: Callable[[], bool]
    base: str
    strengths: tuple[float, ...] = STRENGTHS

    def run(self, entrants: Iterable[Entrant], traits: Traits) -> Verdict | None:
        """Evaluate the base model and every entrant, and write what comes of it; None if it was stopped.

        Raises:
            ValueError: if what the base model draws is not finite, or the report cannot be written; all else
                is there then.
        """
        entrants = list(entrants)
        base = self.figures(BASE)
        if base is None:
            return None
        figures = {}
        for entrant in entrants:
            found = self.figures(entrant.candidate, entrant.folder)
            if found is None:
                return None
            figures[entrant.candidate] = found
        standings = [standing(each, found, base, self.judge.photos) for each, found in figures.items()]
        verdict = decide(standings, traits, self.judge.photos)
        chosen = next(each for each in entrants if each.candidate == verdict.best.candidate)
        if not self._draw_strengths(chosen):
            return None
        outcome = self._outcome(base, figures, verdict, entrants)
        write_json(self.out / EVALUATION_FILE, outcome)
        self.events.write(
            "verdict",
            step=chosen.candidate.step,
            weights=chosen.candidate.weights,
            path=self._relative(chosen.folder),
            reason=verdict.reason,
        )
        # Last, so that what stands in its way takes nothing of the verdict.
        write_report(self.out, outcome)
        return verdict

    def _folder(self, candidate: Candidate) -> Path:
        return self.out / EVALUATION_FOLDER / candidate.folder_name

    def figures(self, candidate: Candidate, folder: Path | None = None) -> Figures | None:
        """What a candidate's images score, read where it was found out before; None if it was stopped.

        Args:
            folder: of its weights; None for the base model, which must come first.
        """
        file = None if folder is None else weights_file(folder)
        assert file is not None or folder is None, f"{folder} holds no weights"
        record = self._folder(candidate) / "figures.json"
        digest = self._digest(file)
        if record.exists() and (known := read_json(record))["digest"] == digest:
            self._warn_of(candidate.name, known["num_broken"], len(self.plan.drawings))
            return Figures.from_json(known["figures"])
        record.unlink(missing_ok=True)
        if file is not None:
            self.adapter.load(file)
        names = [self._name(drawing) for drawing in self.plan.drawings]
        num_broken = self._draw(candidate, self.plan.drawings, names)
        if num_broken is None:
            return None
        self._warn_of(candidate.name, num_broken, len(names))
        device = getattr(self.painter.pipeline, self.painter.family.denoiser_part).device

        def judging() -> Figures:
            before = None if candidate == BASE else self._base_leaks
            return self.judge.figures(self.plan, self._pictures(candidate), before)

        found = self.judge.on(device, judging)
        write_json(record, {"digest": digest, "num_broken": num_broken, "figures": found.to_json()})
        return found

    @cached_property
    def _base_leaks(self) -> dict[LeakKind, Tensor]:
        return self.judge.leaked(self.plan, self._pictures(BASE))

    def _warn_of(self, drawn_by: str, num_broken: int, total: int) -> None:
        """Say how many images of what is drawn are not finite, if any are."""
        if num_broken:
            self.events.write(
                "warning",
                message=f"What {drawn_by} draws is not finite in {num_broken} of {total} images: black "
                "pictures stand in their place.",
                hint=f"Take other weights, or train at a lower learning_rate. {NOT_FINITE_HINT}",
            )

    def _draw(self, candidate: Candidate, drawings: list[Drawing], names: list[str]) -> int | None:
        """Draw with the weights that are in place and write the images; None if it was stopped.

        Returns:
            How many are not finite, in whose place black pictures lie: they show nothing, and score so.

        Raises:
            ValueError: if one of the base model's is so, against which all others are measured.
        """
        total = len(drawings)

        def on_drawn(count: int) -> bool:
            message = f"Evaluating {candidate.name}: {count} of {total} images."
            self.events.write("stage", name="evaluating", message=message)
            return self.should_stop()

        if candidate.weights == "base":
            with self.adapter.off() as denoiser:
                images = self.painter.of_base(denoiser).draw(drawings, on_drawn)
        else:
            images = self.painter.draw(drawings, on_drawn)
        if images is None:
            return None
        num_broken = images.count(None)
        if num_broken and candidate == BASE:
            raise ValueError(
                f"What the base model draws is not finite in {num_broken} of {total} images, so that nothing "
                f"can be compared with it. {NOT_FINITE_HINT}"
            )
        black = Image.new("RGB", (self.painter.settings.width_px, self.painter.settings.height_px))
        for name, image in zip(names, images, strict=True):
            with replace_file(self._folder(candidate) / name) as temporary:
                (image or black).save(temporary, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
        return num_broken

    def _name(self, drawing: Drawing) -> str:
        prompt = self.plan.all_prompts.index(drawing.prompt)
        return f"{prompt}-{self.plan.seeds.index(drawing.seed)}.jpg"

    def _pictures(self, candidate: Candidate) -> Pictures:
        """The images as they lie in their files, so that what is gone on with scores the same."""
        pictures = [
            Image.open(self._folder(candidate) / self._name(drawing)).convert("RGB")
            for drawing in self.plan.drawings
        ]
        return by_prompt(self.plan.all_prompts, pictures, len(self.plan.seeds))

    def _draw_strengths(self, entrant: Entrant) -> bool:
        """The recommended adapter at several strengths, unless they are there; False if it was stopped."""
        drawings = [
            Drawing(prompt, self.plan.seeds[0]) for prompt in self.plan.prompts[:NUM_STRENGTH_PROMPTS]
        ]
        names = {
            strength: [f"strength-{strength:g}-{index}.jpg" for index in range(len(drawings))]
            for strength in self.strengths
        }
        folder, file = self._folder(entrant.candidate), weights_file(entrant.folder)
        record, digest = folder / "strengths.json", self._digest(file)
        if not record.exists() or read_json(record)["digest"] != digest:
            for path in folder.glob("strength-*.jpg"):
                path.unlink()
            write_json(record, {"digest": digest})
        missing = [s for s in self.strengths if not all((folder / name).exists() for name in names[s])]
        if not missing:
            return True
        self.adapter.load(file)
        for strength in missing:
            with nullcontext() if strength == 1 else self.adapter.at_strength(strength):
                num_broken = self._draw(entrant.candidate, drawings, names[strength])
            if num_broken is None:
                return False
            self._warn_of(f"{entrant.candidate.name} at strength {strength:g}", num_broken, len(drawings))
        return True

    def _digest(self, file: Path | None) -> str:
        """Tells what images and figures follow from: prompts, sampling, base model, weights and judges."""
        settings = self.painter.settings
        how = (settings.width_px, settings.height_px, settings.num_inference_steps, settings.guidance_scale)
        weights = None if file is None else (file.stat().st_size, file.stat().st_mtime_ns)
        return repr((self.plan.digest, self.painter.negative, how, self.base, weights, self.judge.digest))

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self.out)) if path.is_relative_to(self.out) else str(path)

    def _outcome(
        self, base: Figures, figures: dict[Candidate, Figures], verdict: Verdict, entrants: list[Entrant]
    ) -> Outcome:
        """The content of `evaluation.json`."""
        folders = {entrant.candidate: entrant.folder for entrant in entrants}
        return {
            "subject": self.plan.subject,
            "class_word": self.plan.class_word,
            "prompts": list(self.plan.prompts),
            "leak_prompts": dict(self.plan.leaks),
            "all_prompts": self.plan.all_prompts,
            "seeds": list(self.plan.seeds),
            "strengths": list(self.strengths),
            "clip": self.judge.clip.name,
            "likeness": self.judge.likeness_name,
            "photos": asdict(self.judge.photos),
            "base": base.to_json(),
            "candidates": [
                {
                    "name": each.candidate.name,
                    "folder": each.candidate.folder_name,
                    "step": each.candidate.step,
                    "weights": each.candidate.weights,
                    "path": self._relative(folders[each.candidate]),
                    "figures": figures[each.candidate].to_json(),
                    **{
                        name: getattr(each, name)
                        for name in (
                            *("fidelity", "adherence", "leak", "copying", "contrast", "score"),
                            "is_on_front",
                        )
                    },
                }
                for each in verdict.standings
            ],
            "best": verdict.best.candidate.folder_name,
            "reason": verdict.reason,
            "warnings": verdict.warnings,
            "next_steps": verdict.next_steps,
        }
