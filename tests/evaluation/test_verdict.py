"""The verdict on made-up figures whose right answer is plain."""

from dataclasses import replace

import pytest

from dreamspace.evaluation.figures import Figures, LeakFigures, PhotoFigures
from dreamspace.evaluation.verdict import Candidate, Traits, Verdict, decide, standing

BASE = Figures(
    clip_mean=0.32,
    clip_min=0.3,
    clip_max=0.34,
    clip_by_prompt={},
    clip_mismatched=0.12,
    clip_i=0.4,
    dino=None,
    nearest_photo=0.45,
    spread=0.2,
    contrast=0.2,
    leaks={"class": LeakFigures(0.4, 0.0), "empty": LeakFigures(0.3, 0.0), "beside": LeakFigures(0.4, 0.0)},
)
PHOTOS = PhotoFigures(resemblance=0.8, nearest_photo=0.85, contrast=0.21, evidence="held_out")


def figures(clip_i: float, clip: float = 0.32, class_likeness: float = 0.4, nearest: float = 0.6) -> Figures:
    leaks = BASE.leaks | {"class": LeakFigures(class_likeness, 0.1)}
    return replace(BASE, clip_i=clip_i, clip_mean=clip, nearest_photo=nearest, leaks=leaks)


def verdict(*found: Figures, photos: PhotoFigures = PHOTOS, traits: Traits | None = None) -> Verdict:
    """Of checkpoints every 100 steps."""
    standings = [
        standing(Candidate(100 * number, "trained"), each, BASE, photos)
        for number, each in enumerate(found, start=1)
    ]
    return decide(standings, traits or Traits(), photos)


def test_measures_go_from_the_base_model_to_the_photos():
    base = standing(Candidate(1, "trained"), figures(0.4), BASE, PHOTOS)
    assert (base.fidelity, base.adherence, base.leak, base.copying) == pytest.approx((0, 1, 0, 0))
    half = standing(Candidate(1, "trained"), figures(0.6, clip=0.22), BASE, PHOTOS)
    assert (half.fidelity, half.adherence) == pytest.approx((0.5, 0.5))
    same = standing(Candidate(1, "trained"), figures(0.8, class_likeness=0.6, nearest=1.0), BASE, PHOTOS)
    assert (same.fidelity, same.leak, same.copying) == pytest.approx((1, 0.5, 1))


def test_a_checkpoint_beyond_which_prompts_are_forgotten_is_recommended():
    found = verdict(figures(0.5), figures(0.7), figures(0.75, clip=0.24), figures(0.76, clip=0.16))
    assert found.best.candidate.step == 200
    assert "75% of the way" in found.reason
    assert "prompts are followed less" in found.reason
    assert any("Overfit from step 300" in warning for warning in found.warnings)
    assert any("about 200" in step for step in found.next_steps)


def test_copying_speaks_against_the_better_likeness():
    found = verdict(figures(0.7), figures(0.75, nearest=0.97))
    assert found.best.candidate.step == 100
    assert "copying" in found.reason


def test_a_leak_is_warned_of_and_a_prior_advised_unless_there_is_one():
    leaking = figures(0.7, class_likeness=0.7)
    found = verdict(leaking)
    assert any(warning.startswith("Leak") for warning in found.warnings)
    assert any("prior" in step for step in found.next_steps)
    with_prior = verdict(leaking, traits=Traits(has_prior=True))
    assert any("richer captions" in step for step in with_prior.next_steps)
    assert not any("with a prior" in step for step in with_prior.next_steps)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("other class", "Leak: images of another class, too, gained 100% of the likeness."),
        ("empty", "Leak: images without a prompt, too, gained 100% of the likeness."),
    ],
)
def test_a_leak_into_other_prompts_is_warned_of_and_changes_no_score(kind: str, words: str):
    base = replace(BASE, leaks=BASE.leaks | {"other class": LeakFigures(0.3, 0.0)})
    kept, leaking = (
        replace(figures(0.7), leaks=base.leaks | {kind: LeakFigures(x, 0.5)}) for x in (0.3, 0.6)
    )
    found, standings = [], []
    for each in (kept, leaking):
        standings.append(standing(Candidate(100, "trained"), each, base, PHOTOS))
        found.append(decide(standings[-1:], Traits(), PHOTOS))
    assert found[0].warnings == []
    assert found[1].warnings == [words]
    assert any("with a prior" in step for step in found[1].next_steps)
    assert decide(standings[-1:], Traits(has_prior=True), PHOTOS).next_steps == []
    assert standings[0].score == standings[1].score


def test_the_subject_beside_something_is_no_leak():
    found = verdict(replace(figures(0.7), leaks=BASE.leaks | {"beside": LeakFigures(0.7, 0.3)}))
    assert found.best.leak == 0
    assert found.warnings == []


def test_a_run_that_learned_too_little_says_so_and_is_to_go_on():
    found = verdict(figures(0.41), figures(0.5))
    assert found.best.candidate.step == 200
    assert "still getting more like" in found.reason
    assert any(warning.startswith("Underfit") for warning in found.warnings)
    assert any("longer" in step for step in found.next_steps)


def test_burnt_contrast_is_named_with_its_step():
    found = verdict(figures(0.7), replace(figures(0.7), contrast=0.3))
    assert any("Burnt contrast from step 200" in warning for warning in found.warnings)
    assert any("learning_rate" in step for step in found.next_steps)


def test_captions_are_advised_where_the_subject_brings_its_surroundings_along():
    assert any("Caption" in step for step in verdict(figures(0.7, clip=0.2)).next_steps)
    captioned = verdict(figures(0.7, clip=0.2), traits=Traits(has_captions=True))
    assert not any("Caption" in step for step in captioned.next_steps)


def test_weak_evidence_is_said():
    weak = replace(PHOTOS, evidence="weak")
    assert any("Weak evidence" in warning for warning in verdict(figures(0.7), photos=weak).warnings)
    assert not any("Weak evidence" in warning for warning in verdict(figures(0.7)).warnings)


def test_of_equal_checkpoints_the_earlier_is_taken():
    assert verdict(figures(0.7), figures(0.701)).best.candidate.step == 100


def test_only_checkpoints_that_no_other_beats_are_on_the_front():
    found = verdict(figures(0.5), figures(0.7), figures(0.6, clip=0.3))
    assert [each.is_on_front for each in found.standings] == [False, True, False]


def test_dino_is_what_counts_where_there_is_one():
    base = replace(BASE, dino=0.2)
    found = replace(figures(0.4), dino=0.5)
    photos = replace(PHOTOS, resemblance=0.8)
    assert standing(Candidate(1, "trained"), found, base, photos).fidelity == pytest.approx(0.5)


def test_averaged_weights_have_a_name_of_their_own():
    assert Candidate(400, "ema").name == "step 400 (moving average)"
    assert Candidate(400, "ema").folder_name == "step-000400-ema"
    assert Candidate(None, "trained").name == "the adapter"
