"""The photos that a run is judged by, apart from those it learns from."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from dreamspace.config import DatasetConfig, RunConfig
from dreamspace.data.held_out import eval_datasets, held_out_ids, holds_out
from dreamspace.data.samples import Sample, read_samples

Evidence = Literal["held_out", "weak"]
"""Whether a run is judged by photos that it never learned from, or, for want of them, by those it did."""


@dataclass(frozen=True)
class EvaluationPhotos:
    """What a run is judged by.

    Attributes:
        samples: by dataset, whether held out or, as weak evidence, of the training.
    """

    samples: dict[str, list[Sample]]
    evidence: Evidence

    @property
    def held_out_names(self) -> list[str]:
        """The files that the run does not learn from; empty where the evidence is weak."""
        return [sample.path.name for sample in self.different] if self.evidence == "held_out" else []

    @property
    def different(self) -> list[Sample]:
        """Each photo once, though datasets may show it at several sizes: the largest."""
        by_content: dict[str, Sample] = {}
        for sample in (sample for samples in self.samples.values() for sample in samples):
            known = by_content.get(sample.content_id)
            if known is None or sample.geometry.size > known.geometry.size:
                by_content[sample.content_id] = sample
        return [by_content[content] for content in sorted(by_content)]


def split_photos(
    config: RunConfig,
    datasets: list[DatasetConfig],
    trained: dict[str, list[Sample]],
    multiple_px: int,
    recorded: Collection[str] | None = None,
) -> tuple[dict[str, list[Sample]], EvaluationPhotos, list[str]]:
    """What is left to train on, what the run is judged by, and warnings.

    Photos of `eval` datasets are held out, those that are trained on too left out of them. Without such
    datasets one photo of the subject in five is taken out of all that is trained, class images included;
    where a dataset would be left empty by that, or there are too few photos, the training's photos serve.

    Args:
        trained: the samples of each dataset that is trained on.
        recorded: the content ids of those that this run has held out from its first step on; None lets it
            choose. Any other photo it may have learned from, whatever was put into its folders since.
    """
    by_eval, warnings = _eval_samples(config, datasets, trained, multiple_px)
    if any(by_eval.values()):
        return trained, EvaluationPhotos(by_eval, "held_out"), warnings
    of_subject = {
        name: [sample for sample in samples if sample.regularisation is None]
        for name, samples in trained.items()
    }
    chosen: set[str] = set()
    if holds_out(config, datasets):
        ids = {sample.content_id for found in of_subject.values() for sample in found}
        chosen = held_out_ids(ids) if recorded is None else ids & set(recorded)
    left = {
        name: [sample for sample in samples if sample.content_id not in chosen]
        for name, samples in trained.items()
    }
    held_out = {
        name: [sample for sample in samples if sample.content_id in chosen]
        for name, samples in of_subject.items()
    }
    if not chosen or not all(left.values()):
        weak = {name: samples for name, samples in of_subject.items() if samples}
        return trained, EvaluationPhotos(weak, "weak"), warnings
    judged_by = {name: samples for name, samples in held_out.items() if samples}
    return left, EvaluationPhotos(judged_by, "held_out"), warnings


def _eval_samples(
    config: RunConfig, datasets: list[DatasetConfig], trained: dict[str, list[Sample]], multiple_px: int
) -> tuple[dict[str, list[Sample]], list[str]]:
    """The samples of each `eval` dataset that are not trained on, and warnings."""
    known = {sample.content_id for samples in trained.values() for sample in samples}
    found: dict[str, list[Sample]] = {}
    warnings: list[str] = []
    for dataset in eval_datasets(datasets):
        samples, remarks = read_samples(dataset, datasets, multiple_px, config.seed)
        warnings += remarks
        shared = [sample.path.name for sample in samples if sample.content_id in known]
        if shared:
            warnings.append(
                f"Of the photos in '{dataset.id}', which the run is judged by, it is trained on "
                f"{', '.join(shared[:5])}{' and others' if len(shared) > 5 else ''}: left out there."
            )
        found[dataset.id] = [sample for sample in samples if sample.content_id not in known]
    if found and not any(found.values()):
        warnings.append(
            "No photo is left in the eval datasets, so the run is judged by the photos that it learns from, "
            "which is weak evidence."
        )
    return found, warnings
