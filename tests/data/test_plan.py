"""The row plan: exact counts, even spreading, and any row at any time."""

from collections import Counter

import pytest

from dreamspace.data.plan import PlannedDataset, RowPlan, mix_seed

SUBJECT, PRIOR = PlannedDataset("subject", 5, 6), PlannedDataset("prior", 10, 1)


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_every_epoch_shows_each_sample_exactly_as_often_as_its_passes(epoch: int) -> None:
    plan = RowPlan([SUBJECT, PRIOR], seed=3)
    assert plan.epoch_rows == 40
    first = epoch * plan.epoch_rows
    counts = Counter(plan.row(number) for number in range(first, first + plan.epoch_rows))
    expected = {(0, sample): 6 for sample in range(5)} | {(1, sample): 1 for sample in range(10)}
    assert counts == expected


def test_each_pass_over_a_dataset_is_a_permutation() -> None:
    plan = RowPlan([SUBJECT, PRIOR], seed=3)
    shown = [sample for dataset, sample in map(plan.row, range(plan.epoch_rows)) if dataset == 0]
    for start in range(0, len(shown), 5):
        assert sorted(shown[start : start + 5]) == [0, 1, 2, 3, 4]


def test_datasets_are_spread_evenly() -> None:
    plan = RowPlan([SUBJECT, PRIOR], seed=3)
    datasets = [plan.row(number)[0] for number in range(plan.epoch_rows)]
    for start in range(plan.epoch_rows - 8 + 1):
        assert 1 <= sum(datasets[start : start + 8]) <= 3, "a window of 8 rows has about 2 of the prior"


def test_rows_in_any_order_equal_the_rows_in_sequence() -> None:
    in_sequence = [RowPlan([SUBJECT, PRIOR], seed=3).row(number) for number in range(200)]
    plan = RowPlan([SUBJECT, PRIOR], seed=3)
    order = [(number * 77) % 200 for number in range(200)]
    at_random = {number: plan.row(number) for number in order}
    assert [at_random[number] for number in range(200)] == in_sequence


def test_epochs_and_seeds_differ() -> None:
    plan = RowPlan([PlannedDataset("subject", 50, 1)], seed=3)
    epochs = [[plan.row(50 * epoch + position)[1] for position in range(50)] for epoch in range(3)]
    other = RowPlan([PlannedDataset("subject", 50, 1)], seed=4)
    epochs.append([other.row(position)[1] for position in range(50)])
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_mixture_counts_what_is_shown() -> None:
    plan = RowPlan([SUBJECT, PRIOR], seed=3)
    assert plan.mixture(40) == {"subject": 0.75, "prior": 0.25}
    assert plan.mixture(1) in ({"subject": 1.0, "prior": 0.0}, {"subject": 0.0, "prior": 1.0})


def test_dataset_that_is_never_shown_does_not_appear() -> None:
    plan = RowPlan([PlannedDataset("off", 4, 0), PlannedDataset("empty", 0, 3), SUBJECT], seed=0)
    assert {plan.row(number)[0] for number in range(100)} == {2}
    assert plan.mixture(30) == {"off": 0.0, "empty": 0.0, "subject": 1.0}


def test_nothing_to_show_is_refused() -> None:
    with pytest.raises(ValueError, match=r"nothing to train on.*Add photos"):
        RowPlan([PlannedDataset("empty", 0, 3)], seed=0)


def test_captions_are_drawn_evenly_whatever_the_place_of_a_row() -> None:
    plan = RowPlan([PlannedDataset("a", 4, 1), PlannedDataset("b", 4, 1)], seed=0)
    for parity in (0, 1):
        drawn = Counter(plan.choice(number, 2) for number in range(parity, 4000, 2))
        assert 800 < drawn[0] < 1200
    assert [plan.choice(number, 3) for number in range(50)] == [
        plan.choice(number, 3) for number in range(50)
    ]


def test_mixed_seeds_tell_numbers_and_their_order_apart() -> None:
    seeds = {mix_seed(seed, step, row) for seed in range(10) for step in range(30) for row in range(30)}
    assert len(seeds) == 9000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert mix_seed(1, 2) != mix_seed(2, 1)
