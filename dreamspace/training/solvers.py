"""Multistep solvers of the denoising process, for rows that stand at different timesteps.

With the model's output turned into clean latents m, a step of any of these solvers is a sum of latents and
of m at this and earlier timesteps, with factors that follow from the noise schedule alone. So a batch can
take the step together, each row with factors of its own. All maths here is numpy in fp64, on the host.
"""

import math
from typing import Literal

import numpy as np

Solver = Literal["unipc", "euler", "dpm"]
Factors = np.ndarray
"""(1 + number of outputs, rows) fp64: of the latents, then of m from the newest to the oldest."""


def log_snr(alphas: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """lambda = log(alpha / sigma), finite even in pure noise, by the alpha that diffusers assumes there."""
    return np.log(np.maximum(alphas, 1e-6)) - np.log(sigmas)


def predictor(solver: Solver, alphas: np.ndarray, sigmas: np.ndarray) -> Factors:
    """The factors of one step: of the latents where it begins, and of as many clean latents m as its order.

    - "euler": order 1, which is DDIM (arXiv:2010.02502) and, in its own variables, k-diffusion's Euler.
    - "dpm": DPM-Solver++ multistep (arXiv:2211.01095), order 2 by its midpoint rule.
    - "unipc": UniP with B(h) = e^h - 1 (arXiv:2302.04867, appendix A); order 2 in its simplified form.

    Args:
        alphas, sigmas: (order + 1, rows): of the timestep where the step ends, of that where it begins, and
            of those before. The order is 1 to 3; "euler" has 1.
    """
    order = len(alphas) - 1
    steps = log_snr(alphas, sigmas)
    h = steps[0] - steps[1]
    shrink = np.expm1(-h)
    if solver == "unipc":
        return _uni_factors(alphas, sigmas, _uni_slopes(steps, order, has_end=False))
    slopes = np.zeros((order, *h.shape))  # of m, as a polynomial in lambda: value, D1 and D2
    if order > 1:
        first = _difference(0, order, h / (steps[1] - steps[2]))
        if order == 2:
            slopes = 0.5 * shrink * first
        else:
            r0, r1 = (steps[1] - steps[2]) / h, (steps[2] - steps[3]) / h
            second = _difference(1, order, 1 / r1)
            bend = first - second
            slopes = -(shrink / h + 1) * (first + r0 / (r0 + r1) * bend)
            slopes += ((shrink + h) / h**2 - 0.5) / (r0 + r1) * bend
    outputs = -alphas[0] * slopes
    outputs[0] -= alphas[0] * shrink
    return np.concatenate([(sigmas[0] / sigmas[1])[None], outputs])


def corrector(alphas: np.ndarray, sigmas: np.ndarray) -> Factors:
    """The factors with which UniC takes a step of UniPC again, once m at its end is known.

    Args:
        alphas, sigmas: as for `predictor`.

    Returns:
        Factors of the latents where the step began, and of order + 1 clean latents: that at its end first.
    """
    slopes = _uni_slopes(log_snr(alphas, sigmas), len(alphas) - 1, has_end=True)
    return _uni_factors(alphas, sigmas, slopes, has_end=True)


def _difference(index: int, num_outputs: int, scale: np.ndarray) -> np.ndarray:
    """scale (m_index - m_(index + 1)) as factors of m, (num_outputs, rows)."""
    factors = np.zeros((num_outputs, *scale.shape))
    factors[index], factors[index + 1] = scale, -scale
    return factors


def _uni_slopes(steps: np.ndarray, order: int, has_end: bool) -> np.ndarray:
    """rho_k / r_k of the differences m_k - m_0, (number, rows): the past ones, then the one at the end."""
    h = steps[0] - steps[1]
    ratios = [(steps[index + 1] - steps[1]) / h for index in range(1, order)]
    if has_end:
        ratios.append(np.ones_like(h))
    if not ratios:
        return np.zeros((0, *h.shape))
    nodes = np.stack(ratios)
    if len(nodes) == 1:
        return 0.5 / nodes
    # sum over k of rho_k r_k^(i - 1) = b_i, for i from 1 on (equation 10, for B(h) = e^h - 1).
    size = len(nodes)
    powers = np.stack([nodes**index for index in range(size)])
    phi, sides = np.expm1(-h) / -h - 1, []
    for index in range(1, size + 1):
        sides.append(phi * math.factorial(index) / np.expm1(-h))
        phi = phi / -h - 1 / math.factorial(index + 1)
    weights = np.linalg.solve(powers.transpose(2, 0, 1), np.stack(sides).T[..., None])[..., 0].T
    return weights / nodes


def _uni_factors(
    alphas: np.ndarray, sigmas: np.ndarray, slopes: np.ndarray, has_end: bool = False
) -> Factors:
    steps = log_snr(alphas, sigmas)
    scale = -alphas[0] * np.expm1(steps[1] - steps[0])
    past, end = (slopes[:-1], slopes[-1:]) if has_end else (slopes, slopes[:0])
    outputs = scale * np.concatenate([end, (1 - slopes.sum(0))[None], past])
    return np.concatenate([(sigmas[0] / sigmas[1])[None], outputs])
