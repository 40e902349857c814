"""SOAP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras import backend, errors
from capibara_keras.rules import kronecker
from capibara_keras.rules.base import Rule, Shape, Slot, bias_correction, decoupled
from capibara_keras.rules.muon import matrix_shape
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["Soap"]


@dataclass(frozen=True)
class Soap(Rule):
    """Adam in the eigenbases of Shampoo's factors, for matrices and kernels (Vyas et al. 2024, Algorithm 3).

        m_t = beta_1 m + (1 - beta_1) g,  v_t = beta_2 v + (1 - beta_2) (Q_L^T g Q_R)²
        u_t = Q_L ((Q_L^T m̂_t Q_R) / (sqrt(v̂_t) + epsilon)) Q_R^T
        L_t = beta_2 L + (1 - beta_2) g g^T,  R_t = beta_2 R + (1 - beta_2) g^T g
        every `precondition_frequency` updates:  Q_L ← Q of L Q_L = Q R (Algorithm 4), and Q_R likewise

    As in the authors' code, the first update moves no variable: the bases come from it, as eigenvectors of L and R.

    A kernel of more than two axes is taken as a matrix as in `Muon`. A side that is longer than
    `max_precondition_dim` (a vocabulary) is not rotated; vectors get Adam.

    Args:
        beta_1, beta_2: decay rates of the mean, and of second moment, L and R; in [0, 1).
        epsilon: outside the square root, after bias correction; > 0.
        precondition_frequency: updates from one refresh of the bases to the next, ≥ 1.
        max_precondition_dim: the longest side that is rotated, ≥ 1.

    >>> [slot.name for slot in Soap().slots_for((2, 3))], [slot.name for slot in Soap().slots_for((3,))]
    (['m', 'v', 'left', 'right', 'left_basis', 'right_basis'], ['m', 'v'])
    """

    beta_1: float = 0.95
    beta_2: float = 0.95
    epsilon: float = 1e-8
    precondition_frequency: int = 10
    max_precondition_dim: int = 10_000

    family: ClassVar[str] = "soap"
    default_learning_rate: ClassVar[float] = 3e-3
    paper: ClassVar[str] = "Vyas et al. 2024, Algorithm 3"
    use: ClassVar[str] = "Large batches, where updates are what counts; three times Adam's memory."
    betas: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2")
    numbers: ClassVar[tuple[str, ...]] = ("epsilon",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("precondition_frequency", "max_precondition_dim"):
            object.__setattr__(self, name, errors.integer(name, getattr(self, name), 1))

    def slots_for(self, shape: Shape, dtype: str = "float32") -> tuple[Slot, ...]:
        # The rounding of m in few bits would be divided by a second moment that has not seen it.
        return Slot("m", moment=False), Slot("v"), *kronecker.declared(shape, self.max_precondition_dim)

    def name_for(self, shape: Shape) -> str:
        return "Soap" if len(shape) > 1 else "Adam"

    @property
    def neutral(self) -> dict[str, float]:
        return super().neutral | {"keep": 1, "one_minus_keep": 0, "refreshes": 0, "first": 0}

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        """All but the factors stands still in the first update; `t - 1` updates move."""
        s, moves = super().prepare(s, t), t > 1
        still = {name: x for name, x in super().neutral.items() if getattr(s, name) is not None}
        steps = ops.maximum(t - 1, ops.ones_like(t))
        return s.replace(
            keep=s.beta_2,
            one_minus_keep=s.one_minus_beta_2,
            refreshes=ops.cast((t - 1) % self.precondition_frequency == 0, t.dtype),
            first=ops.cast(ops.logical_not(moves), t.dtype),
            correction_1=bias_correction(s.one_minus_beta_1, steps),
            correction_2=bias_correction(s.one_minus_beta_2, steps),
            **{k: ops.where(moves, getattr(s, k), ops.full_like(getattr(s, k), x)) for k, x in still.items()},
        )

    def average(self, slots: tuple[Tensor, ...], s: Scalars) -> Tensor:
        """The mean of earlier gradients."""
        return slots[0] * s.correction_1

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        shape, axes = tuple(g.shape), kronecker.sides(tuple(g.shape), self.max_precondition_dim)
        flat = matrix_shape(shape) if axes else shape
        m, v, *rest = slots
        factors, bases = rest[: len(axes)], rest[len(axes) :]
        g_flat = ops.reshape(g, flat)

        m = s.beta_1 * m + s.one_minus_beta_1 * g
        g_basis, m_basis = (kronecker.rotated(x, bases, axes) for x in (g_flat, ops.reshape(m, flat)))
        v = s.beta_2 * ops.reshape(v, flat) + s.one_minus_beta_2 * g_basis * g_basis
        u = kronecker.rotated_back(m_basis * s.correction_1 / (ops.sqrt(v * s.correction_2) + s.epsilon), bases, axes)
        delta = decoupled(ops.reshape(u, shape), p, s)

        factors = kronecker.averaged(factors, g_flat, axes, s)
        if axes:
            bases, v = backend.cond(
                s.refreshes > 0,
                lambda: backend.cond(
                    s.first > 0,
                    lambda: (kronecker.eigenbases(factors), v),
                    lambda: kronecker.refreshed(factors, bases, v, axes),
                ),
                lambda: (bases, v),
            )
        return delta, (m, ops.reshape(v, shape), *factors, *bases)
