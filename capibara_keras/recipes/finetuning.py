"""Training further what was pretrained."""

from __future__ import annotations

from typing import Any

from capibara_keras import errors
from capibara_keras.recipes import sizes
from capibara_keras.recipes.recipe import NO_DECAY, Choice, Recipe

__all__ = ["TASKS", "finetuning", "finetuning_options"]

BERT, ELECTRA, MAE, LLAMA = (
    "Devlin et al. 2019, Appendix A.3",
    "Clark et al. 2020, Table 7",
    "He et al. 2022, Table 9",
    "Touvron et al. 2023 (Llama 2), Section 3.1",
)


def _as_bert(rate: float) -> dict[str, tuple[Any, str]]:
    return {
        "learning_rate": (rate, BERT),
        "layer_wise_lr_decay": (0.9, ELECTRA),
        "weight_decay": (0.01, BERT),
        "beta_2": (0.999, BERT),
        "scheduler_type": ("linear_with_warmup", BERT),
    }


TASKS: dict[str, dict[str, tuple[Any, str]]] = {
    "text_classification": _as_bert(5e-5),
    "token_classification": _as_bert(5e-5),
    "regression": _as_bert(2e-5),
    "image_classification": {
        "learning_rate": (4e-3, MAE),
        "layer_wise_lr_decay": (0.75, MAE),
        "weight_decay": (0.05, MAE),
        "beta_2": (0.999, MAE),
        "scheduler_type": ("cosine_with_warmup", MAE),
    },
    "generation": {
        "learning_rate": (2e-5, LLAMA),
        "layer_wise_lr_decay": (1.0, LLAMA),
        "weight_decay": (0.1, LLAMA),
        "beta_2": (0.95, LLAMA),
        "scheduler_type": ("cosine_with_warmup", LLAMA),
    },
}
"""Task -> option -> value and source."""

FEW = 10_000
"""Fewer examples than this are few: more warmup, more epochs."""

_REASONS = {
    "learning_rate": "small steps from a good point",
    "layer_wise_lr_decay": "layers near the input change less",
    "weight_decay": "as the model of the source",
    "beta_2": "as the model of the source",
    "scheduler_type": "as the model of the source",
}


def finetuning(
    task_type: str = "text_classification", dataset_size: Any = "medium", target_epochs: int | None = None
) -> Recipe:
    """AdamW with layer-wise rates. The total of updates comes from `fit`, through a callback of this package.

    Args:
        task_type: a key of `TASKS`.
        dataset_size: examples: a number, "20k", or a name of `sizes.EXAMPLES`.
        target_epochs: epochs that `fit` will be called with; for the advice.

    Raises:
        ConfigError: another task, a size that is none.

    >>> finetuning("image_classification", "small", 10).options["layer_wise_lr_decay"]
    0.75
    """
    task = TASKS[errors.choice("task_type", task_type, TASKS)]
    examples = sizes.count("dataset_size", dataset_size, sizes.EXAMPLES)
    epochs = None if target_epochs is None else errors.integer("target_epochs", target_epochs, 1)
    few = examples < FEW
    choices = [
        Choice("algorithm", "adamw", "what such models were pretrained with", "Loshchilov & Hutter 2019, Algorithm 2"),
        *(Choice(name, value, _REASONS[name], source) for name, (value, source) in task.items() if value != 1.0),
        Choice("weight_decay_exclude", list(NO_DECAY), "decay is for matrices", BERT),
        Choice("global_clipnorm", 1.0, "limits what one bad batch can do", BERT),
        _warmup(examples, few),
    ]
    advice = []
    if few and (epochs is None or epochs < 10):
        reason = "with so few examples, more epochs make runs agree with each other"
        advice.append(Choice("epochs", 20, reason, "Mosbach et al. 2021"))
    arguments = {"task_type": task_type, "dataset_size": dataset_size, "target_epochs": epochs}
    return Recipe("finetuning", arguments, tuple(choices), tuple(advice))


def _warmup(examples: float, few: bool) -> Choice:
    if few:
        reason = f"{examples:,.0f} examples are few: runs fail without warmup"
        return Choice("warmup_ratio", 0.1, reason, "Mosbach et al. 2021")
    return Choice("warmup_ratio", 0.06, f"for {examples:,.0f} examples a little is enough", "Liu et al. 2019, Table 10")


def finetuning_options() -> dict[str, Any]:
    """What `create_for_finetuning` starts from.

    >>> finetuning_options()["layer_wise_lr_decay"]
    0.95
    """
    return {
        "algorithm": "adamw",
        "learning_rate": 5e-5,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-8,
        "weight_decay": 0.01,
        "weight_decay_exclude": list(NO_DECAY),
        "global_clipnorm": 1.0,
        "scheduler_type": "linear_with_warmup",
        "warmup_ratio": 0.1,
        "layer_wise_lr_decay": 0.95,
    }
