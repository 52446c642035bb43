"""What rows draw: functions of seed, step and row alone, and distributed as they should be."""

import math

import pytest
import torch

from dreamspace.data.plan import mix_seed
from dreamspace.training.timesteps import (
    TIMESTEP,
    random_normal,
    random_rows,
    stratified,
    timestep_at,
    uniform,
)


def test_rows_depend_on_seed_step_and_row_alone() -> None:
    noise, timesteps = random_rows(7, 3, range(6), (4, 8, 8), 1000)
    for first, count in [(0, 1), (1, 2), (3, 3), (5, 1)]:
        rows = range(first, first + count)
        part_noise, part_timesteps = random_rows(7, 3, rows, (4, 8, 8), 1000)
        assert torch.equal(part_noise, noise[first : first + count])
        assert torch.equal(part_timesteps, timesteps[first : first + count])
    for seed, step, row in [(8, 3, 0), (7, 4, 0), (7, 3, 1)]:
        other, _ = random_rows(seed, step, range(row, row + 1), (4, 8, 8), 1000)
        assert not torch.equal(other[0], noise[0])


def test_rows_draw_what_runs_before_the_options_drew() -> None:
    generator = torch.Generator().manual_seed(mix_seed(7, 3, 5))
    expected = torch.randn((4, 8, 8), generator=generator), torch.randint(1000, (), generator=generator)
    noise, timesteps = random_rows(7, 3, range(5, 6), (4, 8, 8), 1000)
    assert torch.equal(noise[0], expected[0])
    assert timesteps[0] == expected[1]


def test_rows_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    random_rows(7, 3, range(2), (4, 8, 8), 1000)
    random_normal(7, 3, range(2), 5, (4, 1, 1))
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_is_normal_and_timesteps_are_uniform() -> None:
    noise, timesteps = random_rows(0, 0, range(2000), (4, 4, 4), 1000)
    assert noise.dtype == torch.float32
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert timesteps.dtype == torch.int64
    assert 0 <= timesteps.min() < 10
    assert 990 <= timesteps.max() < 1000
    assert abs(timesteps.float().mean() - 499.5) < 25
    neighbours = torch.stack([noise[:-1].flatten(1), noise[1:].flatten(1)])
    correlation = (neighbours[0] * neighbours[1]).mean()
    assert abs(correlation) < 0.01, "neighbouring rows are independent"


def test_streams_are_independent_uniform_numbers() -> None:
    drawn = torch.tensor([[uniform(1, step, 0, stream) for step in range(4000)] for stream in (2, 3)])
    assert 0 <= drawn.min() < 0.01
    assert 0.99 < drawn.max() < 1
    assert drawn.mean(dim=1).tolist() == pytest.approx([0.5, 0.5], abs=0.02)
    assert abs(torch.corrcoef(drawn)[0, 1]) < 0.05


@pytest.mark.parametrize("num_rows", [1, 3, 8])
def test_stratified_numbers_lie_one_in_each_part_and_each_alone_is_uniform(num_rows: int) -> None:
    by_step = [[stratified(5, step, row, num_rows) for row in range(num_rows)] for step in range(2000)]
    for numbers in by_step:
        assert sorted(int(number * num_rows) for number in numbers) == list(range(num_rows))
    of_first_row = torch.tensor(by_step)[:, 0]
    assert of_first_row.mean().item() == pytest.approx(0.5, abs=0.03)
    assert of_first_row.std().item() == pytest.approx(12**-0.5, abs=0.02)


def test_stratified_steps_vary_less() -> None:
    spread = torch.tensor([[stratified(5, step, row, 4) for row in range(4)] for step in range(500)])
    drawn = torch.tensor([[uniform(5, step, row, TIMESTEP) for row in range(4)] for step in range(500)])
    assert spread.mean(dim=1).std() < 0.6 * drawn.mean(dim=1).std()


SHARES = torch.arange(100_000, dtype=torch.float64) / 100_000


def test_uniform_timesteps_come_equally_often() -> None:
    counts = torch.bincount(timestep_at(SHARES, "uniform", 3.0, 1000), minlength=1000)
    assert counts.min() >= 99
    assert counts.max() <= 101


def test_logit_normal_timesteps_have_the_density_of_their_definition() -> None:
    share = timestep_at(SHARES, "logit_normal", 3.0, 1000).double().add(0.5).div(1000)
    expected = torch.randn(200_000, generator=torch.Generator().manual_seed(0)).sigmoid().double()
    marks = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    torch.testing.assert_close(share.quantile(marks), expected.quantile(marks), rtol=0.02, atol=0.003)
    assert timestep_at(torch.tensor([0.0, 1 - 1e-12]).double(), "logit_normal", 3.0, 1000).tolist() == [
        0,
        999,
    ]


def test_shifted_logit_normal_timesteps_are_those_of_a_shifted_flow() -> None:
    share = timestep_at(SHARES, "shifted_logit_normal", 3.0, 1000).double().add(0.5).div(1000)
    plain = torch.randn(200_000, generator=torch.Generator().manual_seed(0)).double()
    marks = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    expected = (plain + math.log(3.0)).sigmoid().quantile(marks)
    torch.testing.assert_close(share.quantile(marks), expected, rtol=0.02, atol=0.003)


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
def test_shifted_timesteps_are_those_of_a_shifted_flow(shift: float) -> None:
    share = timestep_at(SHARES, "shifted", shift, 1000).double().add(0.5).div(1000)
    # Sigma s u / (1 + (s - 1) u) has the log SNR of u, less 2 log s (arXiv:2403.03206, section 5.3.2).
    moved = torch.log(SHARES[1:] / (1 - SHARES[1:])) + math.log(shift)
    torch.testing.assert_close(share[1:], moved.sigmoid(), rtol=0, atol=6e-4)
