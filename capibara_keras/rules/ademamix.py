"""AdEMAMix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras import errors
from capibara_keras.rules.base import Rule, bias_correction, decoupled
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["AdEMAMix"]


@dataclass(frozen=True)
class AdEMAMix(Rule):
    """Adam with a second, very slow momentum (Pagliardini, Ablin & Grangier 2024, Algorithm 1).

        m_t = beta_1 m_{t-1} + (1 - beta_1) g_t
        s_t = beta_3(t) s_{t-1} + (1 - beta_3(t)) g_t
        u_t = (m̂_t + alpha(t) s_t) / (sqrt(v̂_t) + epsilon),  v_t as in Adam; s_t is not corrected

    With a `horizon` T, alpha(t) = alpha min(t / T, 1), and the half-life of beta_3(t) rises from that of beta_1 to
    that of beta_3 until T (Section 3): early training is unstable without.

    Args:
        beta_1, beta_2, beta_3: decay rates of the fast, the second and the slow moment, in [0, 1).
        alpha: weight of the slow momentum, ≥ 0.
        epsilon: outside the square root, after bias correction; > 0.
        horizon: updates over which alpha and beta_3 rise, all of the training say; `None` for at once.

    >>> [slot.name for slot in AdEMAMix().slots_for((2, 3))]
    ['m', 'v', 'slow']
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    beta_3: float = 0.9999
    alpha: float = 5.0
    epsilon: float = 1e-8
    horizon: int | None = None

    family: ClassVar[str] = "ademamix"
    default_learning_rate: ClassVar[float] = 1e-3
    paper: ClassVar[str] = "Pagliardini, Ablin & Grangier 2024, Algorithm 1"
    use: ClassVar[str] = "Long runs of language models, of 10^5 updates and more."
    state: ClassVar[tuple[str, ...]] = ("m", "v", "slow")
    betas: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2", "beta_3")
    numbers: ClassVar[tuple[str, ...]] = ("alpha", "epsilon")

    def __post_init__(self) -> None:
        super().__post_init__()
        errors.number("alpha", self.alpha, 0)
        if self.horizon is not None:
            object.__setattr__(self, "horizon", errors.integer("horizon", self.horizon, 1))
            errors.number("beta_1", self.beta_1, 0, 1, open_low=True, open_high=True)
            errors.number("beta_3", self.beta_3, 0, 1, open_low=True, open_high=True)

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        s = (
            super()
            .prepare(s, t)
            .replace(
                correction_1=bias_correction(s.one_minus_beta_1, t),
                correction_2=bias_correction(s.one_minus_beta_2, t),
            )
        )
        if self.horizon is None:
            return s
        share = ops.minimum(t / self.horizon, 1.0)
        first, last = ops.log1p(-s.one_minus_beta_1), ops.log1p(-s.one_minus_beta_3)
        log_beta_3 = first * last / ((1 - share) * last + share * first)
        return s.replace(alpha=share * s.alpha, beta_3=ops.exp(log_beta_3), one_minus_beta_3=-ops.expm1(log_beta_3))

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        m, v, slow = slots
        m = s.beta_1 * m + s.one_minus_beta_1 * g
        v = s.beta_2 * v + s.one_minus_beta_2 * g * g
        slow = s.beta_3 * slow + s.one_minus_beta_3 * g
        u = (m * s.correction_1 + s.alpha * slow) / (ops.sqrt(v * s.correction_2) + s.epsilon)
        return decoupled(u, p, s), (m, v, slow)
