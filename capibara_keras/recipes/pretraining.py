"""Training from scratch: transformers and what is trained like them."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from capibara_keras import errors
from capibara_keras.recipes import sizes
from capibara_keras.recipes.recipe import NO_DECAY, Choice, Recipe

__all__ = ["large_model_options", "peak_rate", "pretraining", "tokens_per_update", "warmup_steps"]

GPT3 = (
    (125e6, 6.0e-4, 0.5e6),
    (350e6, 3.0e-4, 0.5e6),
    (760e6, 2.5e-4, 0.5e6),
    (1.3e9, 2.0e-4, 1e6),
    (2.7e9, 1.6e-4, 1e6),
    (6.7e9, 1.2e-4, 2e6),
    (13e9, 1.0e-4, 2e6),
    (175e9, 0.6e-4, 3.2e6),
)
"""Parameters, peak rate, tokens per update (Brown et al. 2020, Table 2.1)."""


_APPENDIX_B = "Brown et al. 2020, Appendix B"
_ADAMW = (
    Choice("beta_1", 0.9, "as in all models of this kind", _APPENDIX_B),
    Choice("beta_2", 0.95, "a shorter memory than 0.999: steps recover faster from spikes", _APPENDIX_B),
    Choice("epsilon", 1e-8, "as in all models of this kind", _APPENDIX_B),
    Choice("weight_decay", 0.1, "decoupled", _APPENDIX_B),
    Choice(
        "weight_decay_exclude", list(NO_DECAY), "decay is for matrices", "Loshchilov & Hutter 2019; usual since GPT-2"
    ),
    Choice("global_clipnorm", 1.0, "limits what one bad batch can do", _APPENDIX_B),
)
"""What does not depend on the size."""


def pretraining(
    model_size: Any = "small",
    dataset_size: Any = "large",
    target_steps: int | None = None,
    tokens_per_batch: Any = None,
) -> Recipe:
    """AdamW as language models are pretrained.

    Args:
        model_size: parameters: a number, "350M", or a name of `sizes.MODELS`.
        dataset_size: tokens: a number, "2B", or a name of `sizes.DATASETS`.
        target_steps: updates of the whole training; `None` takes them from `fit`.
        tokens_per_batch: tokens (examples, where there are no tokens) of one update, if not the advised number.

    Raises:
        ConfigError: sizes that are no sizes, fewer than 2 steps.

    >>> pretraining("large", "multi_billion_tokens", 500_000).options["learning_rate"]
    0.00025
    """
    parameters = sizes.count("model_size", model_size, sizes.MODELS)
    tokens = sizes.count("dataset_size", dataset_size, sizes.DATASETS)
    steps = None if target_steps is None else errors.integer("target_steps", target_steps, 2)
    advised = tokens_per_update(parameters, tokens)
    batch = advised if tokens_per_batch is None else sizes.count("tokens_per_batch", tokens_per_batch, {})
    seen = tokens if steps is None or tokens_per_batch is None else min(tokens, steps * batch)
    choices = [
        Choice("algorithm", "adamw", "the reference for transformers", "Loshchilov & Hutter 2019, Algorithm 2"),
        _rate(parameters, seen, batch, advised),
        *_ADAMW,
        Choice(
            "scheduler_type",
            "linear_with_warmup",
            "down to zero: the end of training gains most from small rates",
            "Bergsma et al. 2025",
        ),
        *_warmup(steps),
        Choice("min_learning_rate", 0.0, "see scheduler_type", "Bergsma et al. 2025"),
    ]
    if steps is not None:
        choices.append(Choice("total_steps", steps, "target_steps"))
    arguments = {
        "model_size": model_size,
        "dataset_size": dataset_size,
        "target_steps": steps,
        "tokens_per_batch": tokens_per_batch,
    }
    advice = [
        Choice("tokens per update", advised, "what this size is trained with", _batch_source(parameters, tokens)),
        *_about_data(parameters, tokens, steps, batch),
    ]
    return Recipe("pretraining", arguments, tuple(choices), tuple(advice))


def _rate(parameters: float, seen: float, batch: float, advised: float) -> Choice:
    """The peak for the tokens that are `seen`, scaled for an update of another size than the `advised` one."""
    scale, reason = math.sqrt(batch / advised), f"peak for {parameters:.3g} parameters"
    if scale != 1.0:
        reason += f", times the root of {batch:.3g} / {advised:.3g} tokens per update (Malladi et al. 2022)"
    rate = float(f"{peak_rate(parameters, seen) * scale:.3g}")
    return Choice("learning_rate", rate, reason, _rate_source(parameters))


def _about_data(parameters: float, tokens: float, steps: int | None, batch: float) -> list[Choice]:
    """Advice where there are too few tokens for the training, or for the model."""
    advice = []
    passes = 0.0 if steps is None else steps * batch / tokens
    if passes > 4:
        reason = f"{steps} updates of {batch:.3g} tokens see the data {passes:.1f} times; beyond 4 it stops helping"
        advice.append(Choice("passes over the data", round(passes, 1), reason, "Muennighoff et al. 2023"))
    if tokens < 20 * parameters:
        reason = f"{tokens:.3g} tokens are few for {parameters:.3g} parameters: a smaller model would do better with "
        reason += "the same compute"
        advice.append(Choice("tokens per parameter", tokens / parameters, reason, "Hoffmann et al. 2022, Table 3"))
    return advice


def peak_rate(parameters: float, tokens: float) -> float:
    """The rate for a model of this size: a line through GPT-3's table on logarithmic scales; below it, by compute.

        η(C) = 0.3118 C^-0.125,   C = 6 N D        (Bi et al. 2024, Equation 1)

    The law was fitted from 10^17 on; further down it is held at 0.02.

    >>> peak_rate(350e6, 1e9), round(peak_rate(1e6, 1e8), 5)
    (0.0003, 0.00443)
    """
    smallest, first, _ = GPT3[0]
    if parameters < smallest:
        return min(max(first, 0.3118 * (6 * parameters * tokens) ** -0.125), 0.02)
    for (n_0, rate_0, _), (n_1, rate_1, _) in pairwise(GPT3):
        if parameters <= n_1:
            share = math.log(parameters / n_0) / math.log(n_1 / n_0)
            return float(f"{rate_0 * (rate_1 / rate_0) ** share:.6g}")
    return GPT3[-1][1]


def tokens_per_update(parameters: float, tokens: float) -> float:
    """Tokens of one update: GPT-3's table; with less compute than its smallest model had, the law of DeepSeek.

        B = 0.2920 C^0.3271,   C = 6 N D           (Bi et al. 2024, Equation 1)

    >>> tokens_per_update(1.3e9, 300e9)
    1000000.0
    """
    table = next((batch for n, _, batch in GPT3 if parameters <= n * 1.01), GPT3[-1][2])
    return float(f"{min(table, 0.2920 * (6 * parameters * tokens) ** 0.3271):.2g}")


def warmup_steps(steps: int, beta_2: float = 0.95) -> int:
    """Updates of warmup: 2/(1 - beta_2) at least, in which the second moments fill (Ma & Yarats 2021, Section 5); 1 %
    of the training, and at most 2000.

    >>> warmup_steps(500_000), warmup_steps(5_000), warmup_steps(100)
    (2000, 50, 10)
    """
    return int(min(max(2 / (1 - beta_2), 0.01 * steps), 2000, 0.1 * steps))


def large_model_options() -> dict[str, Any]:
    """What `create_for_large_model` starts from: models beyond 10^9 parameters, whose total of steps `fit` knows.

    >>> large_model_options()["beta_2"]
    0.95
    """
    return {
        "algorithm": "adamw",
        "learning_rate": 1.5e-4,
        "beta_1": 0.9,
        "beta_2": 0.95,
        "epsilon": 1e-8,
        "weight_decay": 0.1,
        "weight_decay_exclude": list(NO_DECAY),
        "global_clipnorm": 1.0,
        "gradient_accumulation_steps": 8,
        "scheduler_type": "cosine_with_warmup",
        "warmup_ratio": 0.03,
        "min_lr_ratio": 0.1,
    }


def _warmup(steps: int | None) -> list[Choice]:
    source = "Ma & Yarats 2021, Section 5"
    if steps is None:
        return [Choice("warmup_ratio", 0.01, "of the total, which fit knows", source)]
    return [Choice("warmup_steps", warmup_steps(steps), "second moments fill in 2/(1 - beta_2) updates", source)]


def _rate_source(parameters: float) -> str:
    return "Bi et al. 2024, Equation 1" if parameters < GPT3[0][0] else "Brown et al. 2020, Table 2.1"


def _batch_source(parameters: float, tokens: float) -> str:
    law = 0.2920 * (6 * parameters * tokens) ** 0.3271
    return "Bi et al. 2024, Equation 1" if law < 0.5e6 else "Brown et al. 2020, Table 2.1"
