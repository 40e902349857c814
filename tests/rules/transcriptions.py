"""The algorithms as their papers print them, in float64 NumPy, one variable, one loop, nothing clever.

Each takes the initial weight, the gradients, the rate and decoupled decay, and returns the last weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Array = np.ndarray
Gradients = Sequence[Array]

TRANSCRIPTIONS: dict[str, Callable[..., Array]] = {}
"""Algorithm -> its transcription."""


def of(algorithm: str) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Enter a function into the table."""

    def enter(function: Callable[..., Array]) -> Callable[..., Array]:
        TRANSCRIPTIONS[algorithm] = function
        return function

    return enter


def steps(gradients: Gradients) -> zip:
    """(t, g_t) from t = 1."""
    return zip(range(1, len(gradients) + 1), gradients, strict=True)


def modified(
    train: Callable[..., Array],
    w: Array,
    gradients: Gradients,
    decay: float,
    cautious: bool = False,
    gradient_centralization: bool = False,
    lookahead_steps: int | None = None,
    lookahead_alpha: float = 0.5,
) -> Array:
    """An algorithm with modifiers, whose steps do not depend on the weights.

    Args:
        train: its sum of steps for some gradients.
        decay: per update.
    """
    slow = w
    if gradient_centralization and w.ndim > 1:
        gradients = [g - g.mean(axis=tuple(range(w.ndim - 1)), keepdims=True) for g in gradients]
    for t, g in steps(gradients):
        step = train(gradients=gradients[:t]) - train(gradients=gradients[: t - 1])
        if cautious:
            mask = step * g < 0
            step = step * mask * w.size / (mask.sum() + 1)
        w = w + step - decay * w
        if lookahead_steps and t % lookahead_steps == 0:
            w = slow = slow + lookahead_alpha * (w - slow)
    return w


@of("sgd")
def sgd(w, gradients, rate, decay=0.0, momentum=0.0):
    b = np.zeros_like(w)
    for _, g in steps(gradients):
        b = momentum * b + g
        w = w - rate * (b + decay * w)
    return w


@of("adam")
@of("adamw")
def adam(w, gradients, rate, decay=0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    m = v = np.zeros_like(w)
    for t, g in steps(gradients):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        u = m / (1 - beta_1**t) / (np.sqrt(v / (1 - beta_2**t)) + epsilon)
        w = w - rate * (u + decay * w)
    return w


@of("nadam")
def nadam(w, gradients, rate, decay=0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-8, momentum_decay=0.004):
    m = v = np.zeros_like(w)
    mu = [beta_1 * (1 - 0.5 * 0.96 ** (t * momentum_decay)) for t in range(1, len(gradients) + 2)]
    for t, g in steps(gradients):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        here, ahead = mu[t - 1], mu[t]
        m_hat = ahead * m / (1 - np.prod(mu[: t + 1])) + (1 - here) * g / (1 - np.prod(mu[:t]))
        w = w - rate * (m_hat / (np.sqrt(v / (1 - beta_2**t)) + epsilon) + decay * w)
    return w


@of("nadamw")
def nadamw(w, gradients, rate, decay=0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    m = v = np.zeros_like(w)
    for t, g in steps(gradients):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        m_hat = beta_1 * m / (1 - beta_1 ** (t + 1)) + (1 - beta_1) * g / (1 - beta_1**t)
        w = w - rate * (m_hat / (np.sqrt(v / (1 - beta_2**t)) + epsilon) + decay * w)
    return w


@of("radam")
def radam(w, gradients, rate, decay=0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    m = v = np.zeros_like(w)
    rho_inf = 2 / (1 - beta_2) - 1
    for t, g in steps(gradients):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        m_hat = m / (1 - beta_1**t)
        rho = rho_inf - 2 * t * beta_2**t / (1 - beta_2**t)
        u = m_hat
        if rho > 5:
            r = np.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
            u = r * m_hat / (np.sqrt(v / (1 - beta_2**t)) + epsilon)
        w = w - rate * (u + decay * w)
    return w


@of("adamax")
def adamax(w, gradients, rate, decay=0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    m = v = np.zeros_like(w)
    for t, g in steps(gradients):
        m = beta_1 * m + (1 - beta_1) * g
        v = np.maximum(beta_2 * v, np.abs(g))
        w = w - rate * (m / (1 - beta_1**t) / (v + epsilon) + decay * w)
    return w


@of("adagrad")
def adagrad(w, gradients, rate, decay=0.0, initial_accumulator_value=0.0, epsilon=1e-8):
    a = np.full_like(w, initial_accumulator_value)
    for _, g in steps(gradients):
        a = a + g**2
        w = w - rate * (g / (np.sqrt(a) + epsilon) + decay * w)
    return w


@of("adadelta")
def adadelta(w, gradients, rate, decay=0.0, rho=0.95, epsilon=1e-6):
    v = d = np.zeros_like(w)
    for _, g in steps(gradients):
        v = rho * v + (1 - rho) * g**2
        u = np.sqrt(d + epsilon) / np.sqrt(v + epsilon) * g
        d = rho * d + (1 - rho) * u**2
        w = w - rate * (u + decay * w)
    return w


@of("rmsprop")
def rmsprop(w, gradients, rate, decay=0.0, rho=0.9, momentum=0.0, epsilon=1e-8, centered=False):
    v = mean = b = np.zeros_like(w)
    for _, g in steps(gradients):
        v = rho * v + (1 - rho) * g**2
        mean = rho * mean + (1 - rho) * g
        variance = v - mean**2 if centered else v
        b = momentum * b + g / (np.sqrt(variance) + epsilon)
        w = w - rate * (b + decay * w)
    return w


@of("ftrl")
def ftrl(
    w,
    gradients,
    rate,
    decay=0.0,
    learning_rate_power=-0.5,
    initial_accumulator_value=0.1,
    l1_regularization_strength=0.0,
    l2_regularization_strength=0.0,
    l2_shrinkage_regularization_strength=0.0,
    beta=0.0,
):
    n, z, l1 = np.full_like(w, initial_accumulator_value), np.zeros_like(w), l1_regularization_strength
    for _, g in steps(gradients):
        new_n = n + g**2
        sigma = (new_n**-learning_rate_power - n**-learning_rate_power) / rate
        z = z + g + 2 * l2_shrinkage_regularization_strength * w - sigma * w
        n = new_n
        curvature = (n**-learning_rate_power + beta) / rate + 2 * l2_regularization_strength
        w = np.where(np.abs(z) > l1, (np.sign(z) * l1 - z) / curvature, 0.0) - rate * decay * w
    return w


@of("lion")
def lion(w, gradients, rate, decay=0.0, beta_1=0.9, beta_2=0.99):
    m = np.zeros_like(w)
    for _, g in steps(gradients):
        w = w - rate * (np.sign(beta_1 * m + (1 - beta_1) * g) + decay * w)
        m = beta_2 * m + (1 - beta_2) * g
    return w


@of("lamb")
def lamb(w, gradients, rate, decay=0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-6):
    m = v = np.zeros_like(w)
    for t, g in steps(gradients):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        r = m / (1 - beta_1**t) / (np.sqrt(v / (1 - beta_2**t)) + epsilon) + decay * w
        w = w - rate * ratio(w, r) * r
    return w


@of("lars")
def lars(w, gradients, rate, decay=0.0, momentum=0.9, trust_coefficient=0.001, nesterov=False):
    b = np.zeros_like(w)
    for _, g in steps(gradients):
        r = g + decay * w
        step = trust_coefficient * ratio(w, r, 1 / trust_coefficient) * r
        b = momentum * b + step
        w = w - rate * (step + momentum * b if nesterov else b)
    return w


def ratio(w: Array, u: Array, otherwise: float = 1.0) -> float:
    """|w| / |u|, `otherwise` where one is 0."""
    a, b = np.sqrt(np.sum(w**2)), np.sqrt(np.sum(u**2))
    return a / b if a > 0 and b > 0 else otherwise


@of("adopt")
def adopt(w, gradients, rate, decay=0.0, beta_1=0.9, beta_2=0.9999, epsilon=1e-6, clip=True):
    m = v = np.zeros_like(w)
    for t, g in steps(gradients):
        if t == 1:
            v, w = g**2, w - rate * decay * w
            continue
        u = g / np.maximum(np.sqrt(v), epsilon)
        m = beta_1 * m + (1 - beta_1) * (np.clip(u, -((t - 1) ** 0.25), (t - 1) ** 0.25) if clip else u)
        w = w - rate * (m + decay * w)
        v = beta_2 * v + (1 - beta_2) * g**2
    return w


@of("adan")
def adan(w, gradients, rate, decay=0.0, beta_1=0.98, beta_2=0.92, beta_3=0.99, epsilon=1e-8):
    m = v = n = np.zeros_like(w)
    last = gradients[0]
    for t, g in steps(gradients):
        d = g - last
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * d
        n = beta_3 * n + (1 - beta_3) * (g + beta_2 * d) ** 2
        step = rate / (np.sqrt(n / (1 - beta_3**t)) + epsilon)
        w = (w - step * (m / (1 - beta_1**t) + beta_2 * v / (1 - beta_2**t))) / (1 + rate * decay)
        last = g
    return w


@of("ademamix")
def ademamix(
    w, gradients, rate, decay=0.0, beta_1=0.9, beta_2=0.999, beta_3=0.9999, alpha=5.0, epsilon=1e-8, horizon=None
):
    m = slow = v = np.zeros_like(w)
    for t, g in steps(gradients):
        a, b = alpha, beta_3
        if horizon is not None:
            a = min(t * alpha / horizon, alpha)
            share, low, high = min(t / horizon, 1.0), np.log(beta_1), np.log(beta_3)
            b = min(np.exp(low * high / ((1 - share) * high + share * low)), beta_3)
        m = beta_1 * m + (1 - beta_1) * g
        slow = b * slow + (1 - b) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        u = (m / (1 - beta_1**t) + a * slow) / (np.sqrt(v / (1 - beta_2**t)) + epsilon)
        w = w - rate * (u + decay * w)
    return w


@of("adafactor")
def adafactor(
    w,
    gradients,
    rate,
    decay=0.0,
    beta_2_decay=-0.8,
    epsilon_1=1e-30,
    epsilon_2=1e-3,
    clip_threshold=1.0,
    relative_step=True,
    scale_parameter=True,
    min_dim_size_to_factor=128,
):
    v, factored = np.zeros_like(w), w.ndim == 2 and min(w.shape) >= min_dim_size_to_factor
    rows, columns = (np.zeros(w.shape[:1]), np.zeros(w.shape[1:])) if factored else (None, None)
    for t, g in steps(gradients):
        beta_2 = 1 - t**beta_2_decay
        v = beta_2 * v + (1 - beta_2) * (g**2 + epsilon_1)
        second = v
        if factored:
            rows = beta_2 * rows + (1 - beta_2) * (g**2 + epsilon_1).mean(axis=1)
            columns = beta_2 * columns + (1 - beta_2) * (g**2 + epsilon_1).mean(axis=0)
            second = np.outer(rows, columns) / rows.mean()
        u = g / np.sqrt(second)
        u = u / max(1.0, np.sqrt(np.mean(u**2)) / clip_threshold)
        step = min(rate, 1 / np.sqrt(t)) if relative_step else rate
        if scale_parameter:
            step *= max(epsilon_2, np.sqrt(np.mean(w**2)))
        w = w - step * u - rate * decay * w
    return w


@of("mars")
def mars(w, gradients, rate, decay=0.0, beta_1=0.95, beta_2=0.99, gamma=0.025, epsilon=1e-8):
    m = v = np.zeros_like(w)
    last = gradients[0]
    for t, g in steps(gradients):
        c = g + gamma * beta_1 / (1 - beta_1) * (g - last)
        c = c / max(1.0, np.sqrt(np.sum(c**2)))
        m = beta_1 * m + (1 - beta_1) * c
        v = beta_2 * v + (1 - beta_2) * c**2
        w = w - rate * (m / (1 - beta_1**t) / (np.sqrt(v / (1 - beta_2**t)) + epsilon) + decay * w)
        last = g
    return w


@of("lazyadam")
def lazyadam(w, gradients, rate, decay=0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    w, m, v = w.copy(), np.zeros_like(w), np.zeros_like(w)
    for t, g in steps(gradients):
        for i in range(len(w)):
            if np.any(g[i] != 0):
                m[i] = beta_1 * m[i] + (1 - beta_1) * g[i]
                v[i] = beta_2 * v[i] + (1 - beta_2) * g[i] ** 2
                u = m[i] / (1 - beta_1**t) / (np.sqrt(v[i] / (1 - beta_2**t)) + epsilon)
                w[i] = w[i] - rate * (u + decay * w[i])
    return w


@of("prodigy")
def prodigy(
    w, gradients, rate, decay=0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-8, initial_distance=1e-6, distance_factor=1.0
):
    start, d, r, beta_3 = w, initial_distance, 0.0, np.sqrt(beta_2)
    m = v = s = np.zeros_like(w)
    for _, g in steps(gradients):
        m = beta_1 * m + (1 - beta_1) * d * g
        v = beta_2 * v + (1 - beta_2) * d**2 * g**2
        r = beta_3 * r + (1 - beta_3) * rate * d**2 * np.sum(g * (start - w))
        s = beta_3 * s + (1 - beta_3) * rate * d**2 * g
        w = w - rate * d * (m / (np.sqrt(v) + d * epsilon) + decay * w)
        d = max(d, distance_factor * r / np.sum(np.abs(s)))
    return w


@of("muon")
def muon(
    w,
    gradients,
    rate,
    decay=0.0,
    momentum=0.95,
    nesterov=True,
    adjust_rate="match_rms_adamw",
    split=1,
    beta_1=0.9,
    beta_2=0.95,
    epsilon=1e-8,
):
    if w.ndim < 2:
        return adam(w, gradients, rate, decay, beta_1, beta_2, epsilon)
    b = np.zeros_like(w)
    for _, g in steps(gradients):
        b = momentum * b + (1 - momentum) * g
        ahead = momentum * b + (1 - momentum) * g if nesterov else b
        parts = []
        for x in np.split(ahead, split, axis=1):
            rows, columns = x.shape
            scale = np.sqrt(max(1, columns / rows))
            scale = 0.2 * np.sqrt(max(rows, columns)) if adjust_rate == "match_rms_adamw" else scale
            x = x / np.sqrt(np.sum(x**2))
            for _ in range(5):
                square = x @ x.T
                x = 3.4445 * x - 4.7750 * square @ x + 2.0315 * square @ square @ x
            parts.append(scale * x)
        w = w - rate * (np.concatenate(parts, axis=1) + decay * w)
    return w


@of("schedulefreeadamw")
def schedulefreeadamw(w, gradients, rate, decay=0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-8, evaluate=False):
    x = z = w
    v, total, largest = np.zeros_like(w), 0.0, 0.0
    rates = np.broadcast_to(rate, len(gradients))
    for t, g in steps(gradients):
        y, rate = (1 - beta_1) * z + beta_1 * x, rates[t - 1]
        v = beta_2 * v + (1 - beta_2) * g**2
        z = z - rate * (g / (np.sqrt(v / (1 - beta_2**t)) + epsilon) + decay * y)
        largest = max(largest, rate)
        total += largest**2
        x = x + largest**2 / total * (z - x)
    return x if evaluate else (1 - beta_1) * z + beta_1 * x


@of("schedulefreesgd")
def schedulefreesgd(w, gradients, rate, decay=0.0, beta_1=0.9, evaluate=False):
    x = z = w
    total, largest = 0.0, 0.0
    rates = np.broadcast_to(rate, len(gradients))
    for t, g in steps(gradients):
        y, rate = (1 - beta_1) * z + beta_1 * x, rates[t - 1]
        z = z - rate * (g + decay * y)
        largest = max(largest, rate)
        total += largest**2
        x = x + largest**2 / total * (z - x)
    return x if evaluate else (1 - beta_1) * z + beta_1 * x


@of("soap")
def soap(
    w,
    gradients,
    rate,
    decay=0.0,
    beta_1=0.95,
    beta_2=0.95,
    epsilon=1e-8,
    precondition_frequency=10,
    max_precondition_dim=10_000,
    as_library=False,
):
    """`as_library`: epsilon is added before bias correction, and the new weight decays, not the old one."""
    m = v = np.zeros_like(w)
    axes = [i for i, n in enumerate(w.shape) if w.ndim > 1 and n <= max_precondition_dim]
    factors, bases = {i: np.zeros((w.shape[i],) * 2) for i in axes}, {}

    def turned(x, back=False):
        for i in axes:
            x = np.moveaxis(np.tensordot(x, bases[i], axes=(i, 1 if back else 0)), -1, i)
        return x

    for t, g in steps(gradients):
        if t > 1:
            m = beta_1 * m + (1 - beta_1) * g
            v = beta_2 * v + (1 - beta_2) * turned(g) ** 2
            k = t - 1  # updates that moved
            added = epsilon / np.sqrt(1 - beta_2**k) if as_library else epsilon
            u = turned(m) / (1 - beta_1**k) / (np.sqrt(v / (1 - beta_2**k)) + added)
            w_next = w - rate * turned(u, back=True)
            w = w_next - rate * decay * (w_next if as_library else w)
        for i in axes:
            square = g @ g.T if i == 0 else g.T @ g
            factors[i] = beta_2 * factors[i] + (1 - beta_2) * square
            if t == 1:
                bases[i] = np.linalg.eigh(factors[i])[1]
            elif (t - 1) % precondition_frequency == 0:
                order = np.argsort(-np.diag(bases[i].T @ factors[i] @ bases[i]))
                v = np.take(v, order, axis=i)
                bases[i] = np.linalg.qr(factors[i] @ bases[i][:, order])[0]
    return w
