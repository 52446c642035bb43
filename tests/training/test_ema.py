"""The moving average: its definition, its turns, its weights in place and back, and an exact resume."""

import pytest
import torch
from torch import nn

from dreamspace.training.ema import MovingAverage

YES, NO = torch.tensor(True), torch.tensor(False)


@pytest.fixture
def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in [(5, 3), (7,), ()]]


def move(weights: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for weight in weights:
        weight.data += torch.randn(weight.shape, generator=generator)


def test_average_follows_its_definition(weights: list[nn.Parameter]) -> None:
    average = MovingAverage(weights, decay=0.9)
    expected = [weight.detach().clone() for weight in weights]
    for step in range(1, 20):
        move(weights, step)
        average.update(step, YES)
        expected = [0.9 * old + 0.1 * new.detach() for old, new in zip(expected, weights, strict=True)]
    torch.testing.assert_close(average.weights, expected)


def test_warm_up_follows_the_weights_and_other_steps_have_no_turn(weights: list[nn.Parameter]) -> None:
    average = MovingAverage(weights, decay=0.9, update_interval=3, warmup_steps=6)
    before = [weight.clone() for weight in average.weights]
    for step in range(1, 7):
        move(weights, step)
        average.update(step, YES)
        if step < 3:
            assert all(map(torch.equal, average.weights, before))
        if step in (3, 6):
            assert all(map(torch.equal, average.weights, weights))
    at_six = [weight.clone() for weight in average.weights]
    for step in (7, 8, 9):
        move(weights, step)
        average.update(step, YES)
    for mine, old, new in zip(average.weights, at_six, weights, strict=True):
        torch.testing.assert_close(mine, 0.9 * old + 0.1 * new.detach())


def test_step_that_was_skipped_does_not_move_it(weights: list[nn.Parameter]) -> None:
    average = MovingAverage(weights, decay=0.5)
    before = [weight.clone() for weight in average.weights]
    move(weights, 1)
    average.update(1, NO)
    assert all(map(torch.equal, average.weights, before))
    average.update(2, YES)
    assert not torch.equal(average.weights[0], before[0])


def test_weights_come_back_to_the_last_bit(weights: list[nn.Parameter]) -> None:
    average = MovingAverage(weights, decay=0.9)
    move(weights, 1)
    trained = [weight.detach().clone() for weight in weights]
    with average.in_place():
        assert all(map(torch.equal, weights, average.weights))
        assert not torch.equal(weights[0], trained[0])
    assert all(map(torch.equal, weights, trained))
    with pytest.raises(KeyError), average.in_place():
        raise KeyError
    assert all(map(torch.equal, weights, trained))
    assert all(weight.requires_grad for weight in weights)


def test_bf16_weights_are_averaged_in_fp32() -> None:
    weight = nn.Parameter(torch.ones(1000, dtype=torch.bfloat16))
    average = MovingAverage([weight], decay=0.999)
    weight.data += 0.125
    for step in range(1, 11):
        average.update(step, YES)
    torch.testing.assert_close(average.weights[0], torch.full((1000,), 1 + 0.125 * (1 - 0.999**10)))
    with average.in_place():
        assert torch.equal(weight, average.weights[0]), "no bit of the average is lost"
        weight.data.zero_()
    assert weight.dtype == torch.bfloat16
    assert average.weights[0].all()


def test_restored_average_goes_on_to_the_last_bit(weights: list[nn.Parameter]) -> None:
    average = MovingAverage(weights, decay=0.9)
    for step in range(1, 4):
        move(weights, step)
        average.update(step, YES)
    copies = [nn.Parameter(weight.detach().clone()) for weight in weights]
    resumed = MovingAverage(copies, decay=0.9)
    with average.in_place(), resumed.in_place():
        for copy, weight in zip(copies, weights, strict=True):
            copy.data.copy_(weight)
        resumed.take_over()
    assert all(map(torch.equal, copies, weights))
    for step in range(4, 8):
        for parameters, mine in ((weights, average), (copies, resumed)):
            move(parameters, step)
            mine.update(step, YES)
    assert all(map(torch.equal, resumed.weights, average.weights))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_average_of_weights_on_a_gpu_equals_that_on_the_cpu(device: str) -> None:
    on_cpu = [nn.Parameter(torch.randn(64, 16))]
    on_gpu = [nn.Parameter(on_cpu[0].detach().cuda())]
    expected, average = MovingAverage(on_cpu, 0.9), MovingAverage(on_gpu, 0.9, device=device)
    for step in range(1, 10):
        move(on_cpu, step)
        on_gpu[0].data.copy_(on_cpu[0])
        is_finite = YES if step % 3 else NO
        expected.update(step, is_finite)
        average.update(step, is_finite.cuda())
    average.flush()
    torch.testing.assert_close(average.weights[0].cpu(), expected.weights[0])
