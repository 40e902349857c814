"""Rectified Adam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras import errors
from capibara_keras.rules.base import Rule, bias_correction, decoupled
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["RAdam"]


@dataclass(frozen=True)
class RAdam(Rule):
    """Adam that adapts only as far as its second moment can be trusted yet (Liu et al. 2020, Algorithm 2).

        rho_inf = 2 / (1 - beta_2) - 1,  rho_t = rho_inf - 2 t beta_2^t / (1 - beta_2^t)
        u_t = r_t m̂_t / (sqrt(v̂_t) + epsilon)  if rho_t > 5,  else m̂_t
        r_t = sqrt((rho_t - 4)(rho_t - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho_t))

    The paper has 4 for the 5 of torch and optax; no rho_t lies between where beta_2 > 0.9.

    Args:
        beta_1, beta_2: decay rates of the moments, in [0, 1); beta_2 above 0.6, else nothing is ever rectified.
        epsilon: outside the square root, after bias correction; > 0.

    >>> [slot.name for slot in RAdam().slots_for((2, 3))]
    ['m', 'v']
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    family: ClassVar[str] = "radam"
    default_learning_rate: ClassVar[float] = 1e-3
    paper: ClassVar[str] = "Liu et al. 2020, Algorithm 2"
    use: ClassVar[str] = "Adam without a warmup to tune."
    state: ClassVar[tuple[str, ...]] = ("m", "v")
    betas: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2")
    numbers: ClassVar[tuple[str, ...]] = ("epsilon",)

    def __post_init__(self) -> None:
        super().__post_init__()
        errors.number("beta_2", self.beta_2, 0.6, 1, open_high=True)

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        s = super().prepare(s, t)
        most = 2 / s.one_minus_beta_2 - 1
        rho = effective_samples(s.one_minus_beta_2, t)
        trusted = rho > 5
        rho = ops.where(trusted, rho, most)
        rectifier = ops.sqrt((rho - 4) / (most - 4) * (rho - 2) / (most - 2) * most / rho)
        return s.replace(
            correction_1=bias_correction(s.one_minus_beta_1, t),
            correction_2=bias_correction(s.one_minus_beta_2, t),
            rectifier=ops.where(trusted, rectifier, ops.zeros_like(rho)),
            plain=ops.where(trusted, ops.zeros_like(rho), ops.ones_like(rho)),
        )

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        m, v = slots
        m = s.beta_1 * m + s.one_minus_beta_1 * g
        v = s.beta_2 * v + s.one_minus_beta_2 * g * g
        u = m * s.correction_1 * (s.rectifier / (ops.sqrt(v * s.correction_2) + s.epsilon) + s.plain)
        return decoupled(u, p, s), (m, v)


def effective_samples(one_minus_beta: Scalar, t: Scalar) -> Scalar:
    """rho_t of Equation 4, which as written loses all its digits in float32 where it is small.

    With l = -ln beta and x = l t it is coth(l/2) - 2/l + (2/l)(1 - x / (e^x - 1)); for small arguments both
    differences are taken from their series.
    """
    rate = -ops.log1p(-one_minus_beta)
    x = rate * t
    small_x = ops.minimum(x, 0.5)
    series = small_x / 2 - small_x**2 / 12 + small_x**4 / 720 - small_x**6 / 30240
    large_x = ops.maximum(x, 0.25)
    share = ops.where(x < 0.5, series, 1 - large_x / ops.expm1(large_x))
    rest = rate / 6 - rate**3 / 360 + rate**5 / 15120
    return 2 / rate * share + rest
