"""ReflexFlow (arXiv:2512.04904): a rolled-out row of a flow model learns more where it went astray.

The meaning of the three settings is SimpleTuner's. The velocity of a flow points from the picture to the
noise, so the way back from the rolled-out latents is minus their difference to the clean ones.
"""

from torch import Tensor


def exposure_weights(clean_prediction: Tensor, biased_prediction: Tensor, alpha: float) -> Tensor:
    """What each cell's error weighs (frequency compensation), (B, C, h, w): 1 + alpha e / |e|, at least 0.

    e is what the prediction lost by the rollout, and |e| the sum of its absolute values over the sample.

    Args:
        clean_prediction: of the latents as they were made noisy, without gradient.
        biased_prediction: of the rolled-out latents at the same timestep, without gradient.
    """
    lost = clean_prediction.float() - biased_prediction.float()
    total = lost.abs().sum(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
    return (1 + alpha * lost / total).clamp(min=0)


def drift_loss(
    prediction: Tensor, noisy_latents: Tensor, latents: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Anti-drift rectification, (B,): the squared distance of two directions, between 0 and 4.

    They are the prediction's and that from the clean latents to the rolled-out ones, each over the whole
    sample.

    Args:
        weights: (B, 1, h, w), what each cell counts; None is 1 everywhere.
    """
    target = noisy_latents.float() - latents.float()
    directions = []
    for field in (prediction.float(), target):
        flat = (field if weights is None else field * weights).flatten(1)
        directions.append(flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-6))
    return (directions[0] - directions[1]).square().sum(dim=1)
