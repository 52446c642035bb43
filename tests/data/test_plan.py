"""The step plan: exact counts, one bucket a step, the mixing rules, and any step at any time."""

from collections import Counter

import pytest

from dreamspace.data.plan import PlannedDataset, Row, StepPlan, balancing_repeats, mix_seed

SMALL, WIDE, LARGE = (512, 512), (576, 448), (1024, 1024)
SUBJECT = PlannedDataset("subject", (SMALL,) * 5, 6)
PRIOR = PlannedDataset("prior", (SMALL,) * 10, 1)
# The guide's four datasets in small: one subject and its class images, at two sizes and in several buckets.
GUIDE = [
    PlannedDataset("subject-512", (SMALL, WIDE, SMALL, SMALL), 11),
    PlannedDataset("subject-1024", (LARGE, LARGE), 11),
    PlannedDataset("class-512", (SMALL,) * 17 + (WIDE,) * 4, 1),
    PlannedDataset("class-1024", (LARGE,) * 13, 1),
]


def epoch_rows(plan: StepPlan, epoch: int = 0) -> list[list[Row]]:
    steps = plan.epoch_steps()
    return [plan.rows(step) for step in range(epoch * steps, (epoch + 1) * steps)]


@pytest.mark.parametrize("sampling", ["auto-weighting", "uniform"])
@pytest.mark.parametrize("epoch", [0, 1, 7])
@pytest.mark.parametrize("step_rows", [1, 3, 4, 100])
@pytest.mark.parametrize("probability", [1.0, 0.2])
def test_every_epoch_shows_each_sample_exactly_as_often_as_its_passes(
    sampling: str, epoch: int, step_rows: int, probability: float
) -> None:
    weighed = [PlannedDataset(d.id, d.sizes, d.num_passes, probability) for d in GUIDE[:1]] + GUIDE[1:]
    plan = StepPlan(weighed, 3, step_rows, sampling)
    counts = Counter(row for rows in epoch_rows(plan, epoch) for row in rows)
    assert counts == {
        Row(index, sample): dataset.num_passes
        for index, dataset in enumerate(GUIDE)
        for sample in range(len(dataset.sizes))
    }


@pytest.mark.parametrize("step_rows", [1, 3, 4, 8])
def test_steps_never_mix_sizes_and_none_is_longer_than_asked_for(step_rows: int) -> None:
    plan = StepPlan(GUIDE, 3, step_rows)
    num_steps = plan.epoch_steps()
    lengths: dict[tuple[int, int], list[int]] = {}
    for step in range(2 * num_steps):
        rows = plan.rows(step)
        assert {GUIDE[row.dataset].sizes[row.sample] for row in rows} == {plan.size(step)}
        lengths.setdefault(plan.size(step), []).append(len(rows))
    for found in lengths.values():
        assert 1 <= min(found) <= max(found) <= step_rows
        assert max(found) - min(found) <= 1, "a bucket is split evenly: no step of one row behind full ones"
    assert num_steps == sum(-(-rows // step_rows) for rows in ((33 + 17), (11 + 4), (22 + 13)))


def test_bucket_that_is_smaller_than_a_step_gives_a_smaller_step() -> None:
    plan = StepPlan([PlannedDataset("a", (SMALL,) * 8 + (WIDE,), 1)], 0, 4)
    assert plan.epoch_steps() == 3
    assert sorted(len(rows) for rows in epoch_rows(plan)) == [1, 4, 4]


def test_each_pass_over_a_dataset_is_a_permutation() -> None:
    plan = StepPlan([SUBJECT, PRIOR], 3, 1)
    shown = [rows[0].sample for rows in epoch_rows(plan) if rows[0].dataset == 0]
    for start in range(0, len(shown), 5):
        assert sorted(shown[start : start + 5]) == [0, 1, 2, 3, 4]


def test_auto_weighting_spreads_datasets_evenly() -> None:
    plan = StepPlan([SUBJECT, PRIOR], 3, 8)
    for rows in epoch_rows(plan):
        assert 1 <= sum(row.dataset for row in rows) <= 3, "of 8 rows about 2 are of the prior"


def test_uniform_draws_datasets_alike_until_one_is_used_up() -> None:
    plan = StepPlan([SUBJECT, PRIOR], 3, 2, "uniform")
    datasets = [tuple(sorted(row.dataset for row in rows)) for rows in epoch_rows(plan)]
    assert datasets == [(0, 1)] * 10 + [(0, 0)] * 10


def test_probability_weighs_a_dataset_under_both_rules() -> None:
    half = PlannedDataset("prior", PRIOR.sizes, 1, probability=0.5)
    for sampling, first_share in (("auto-weighting", 1 / 7), ("uniform", 1 / 3)):
        plan = StepPlan([SUBJECT, half], 3, 1, sampling)
        first = [rows[0].dataset for rows in epoch_rows(plan)[:14]]
        assert abs(sum(first) / 14 - first_share) < 0.08
        assert plan.mixture(40) == {"subject": 0.75, "prior": 0.25}, "over an epoch all are seen as planned"


def test_steps_in_any_order_equal_the_steps_in_sequence() -> None:
    datasets = [*GUIDE, PlannedDataset("late", (WIDE,) * 3, 2, start_step=21, end_step=77)]
    first = StepPlan(datasets, 3, 4)
    in_sequence = [first.rows(step) for step in range(200)]
    plan = StepPlan(datasets, 3, 4)
    order = [(step * 77) % 200 for step in range(200)]
    at_random = {step: plan.rows(step) for step in order}
    assert [at_random[step] for step in range(200)] == in_sequence
    assert StepPlan(datasets, 3, 4, num_steps=90).rows(80) == in_sequence[80]


def test_epochs_and_seeds_differ() -> None:
    many = [PlannedDataset("subject", (SMALL,) * 50, 1)]
    epochs = [epoch_rows(StepPlan(many, 3, 4), epoch) for epoch in range(3)]
    epochs.append(epoch_rows(StepPlan(many, 4, 4)))
    assert len({repr(epoch) for epoch in epochs}) == 4


def test_datasets_take_part_from_their_first_to_before_their_last_step() -> None:
    always = PlannedDataset("always", (SMALL,) * 4, 1)
    some = PlannedDataset("some", (SMALL,) * 4, 1, start_step=10, end_step=20)
    plan = StepPlan([always, some], 0, 2)
    seen = [{row.dataset for row in plan.rows(step)} for step in range(30)]
    assert all(found == {0} for found in seen[:10] + seen[20:])
    # Epochs of 4 steps begin anew at step 10: in steps 10 to 13 each sample of both is seen once.
    for start in (10, 14):
        rows = Counter(row for step in range(start, start + 4) for row in plan.rows(step))
        assert rows == {Row(dataset, sample): 1 for dataset in (0, 1) for sample in range(4)}
    assert (plan.epoch_steps(), plan.epoch_steps(12), plan.epoch_steps(25)) == (2, 4, 2)


def test_mixture_counts_what_is_shown() -> None:
    plan = StepPlan([SUBJECT, PRIOR], 3, 4)
    assert plan.mixture(plan.epoch_steps()) == {"subject": 0.75, "prior": 0.25}
    assert sum(StepPlan(GUIDE, 3, 4).mixture(7).values()) == pytest.approx(1)


def test_dataset_that_is_never_shown_does_not_appear() -> None:
    off = [
        PlannedDataset("no passes", (WIDE,), 0),
        PlannedDataset("empty", (), 3),
        PlannedDataset("never drawn", (WIDE,), 3, probability=0),
    ]
    plan = StepPlan([*off, SUBJECT], 0, 4)
    assert {row.dataset for step in range(50) for row in plan.rows(step)} == {3}
    assert plan.mixture(30) == {"no passes": 0.0, "empty": 0.0, "never drawn": 0.0, "subject": 1.0}


def test_nothing_to_show_is_refused() -> None:
    with pytest.raises(ValueError, match=r"nothing to train on at step 0.*Add photos"):
        StepPlan([PlannedDataset("empty", (), 3)], 0, 4)
    with pytest.raises(ValueError, match="at step 0"):
        StepPlan([PlannedDataset("never", (SMALL,), 1, probability=0)], 0, 4)
    gone = [PlannedDataset("a", (SMALL,), 1, end_step=50)]
    with pytest.raises(ValueError, match="at step 50"):
        StepPlan(gone, 0, 4)
    assert StepPlan(gone, 0, 4, num_steps=50).rows(49) == [Row(0, 0)]


def test_captions_are_drawn_evenly_whatever_the_step_and_the_row() -> None:
    plan = StepPlan([SUBJECT], 0, 4)
    for row in (0, 1):
        drawn = Counter(plan.choice(step, row, 2) for step in range(2000))
        assert 900 < drawn[0] < 1100
    again = StepPlan([SUBJECT], 0, 4)
    assert [plan.choice(step, 1, 3) for step in range(50)] == [again.choice(step, 1, 3) for step in range(50)]
    assert {plan.choice(step, 0, 1) for step in range(20)} == {0}


def test_mixed_seeds_tell_numbers_and_their_order_apart() -> None:
    seeds = {mix_seed(seed, step, row) for seed in range(10) for step in range(30) for row in range(30)}
    assert len(seeds) == 9000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert mix_seed(1, 2) != mix_seed(2, 1)


@pytest.mark.parametrize(
    ("photos", "class_images", "repeats"),
    [(10, 1000, 99), (7, 1000, 142), (4, 6, 1), (4, 5, 0), (4, 4, 0), (10, 3, 0), (1, 0, 0)],
)
def test_balancing_repeats_show_the_subject_about_as_often(
    photos: int, class_images: int, repeats: int
) -> None:
    assert balancing_repeats(photos, class_images) == repeats
    nearest = min(range(300), key=lambda other: abs(photos * (other + 1) - class_images))
    assert abs(photos * (nearest + 1) - class_images) == abs(photos * (repeats + 1) - class_images)
