"""Writes docs/options.md from the tables of the package: `python docs/scripts/options.py`.

Names, aliases, defaults and shapes are read from the code; whether an option can change after `build` is tried out.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras

import capibara_keras as ck
from capibara_keras import config
from capibara_keras.rules import RULES
from capibara_keras.schedules import SCHEDULES, plan
from capibara_keras.schedules.arguments import ARGUMENTS

PAGE = Path(__file__).parents[1] / "options.md"

TOPICS = {
    "Learning rate": ("learning_rate", "use_scheduler"),
    "Weight decay": ("weight_decay", "weight_decay_mode", "weight_decay_exclude"),
    "Clipping": (*config.CLIPS, *config.CLIPPING, "skip_spikes"),
    "Accumulation and bad gradients": (*config.ACCUMULATION, "accumulator", "loss_scale_factor"),
    "Average of the weights": ("use_ema", "ema_momentum", "ema_overwrite_frequency"),
    "Groups": ("layer_wise_lr_decay", "layer_depths", "differential_learning_rates", "groups"),
    "Modifiers": ("cautious", "gradient_centralization", "lookahead_steps", "lookahead_alpha"),
    "Precision": ("state_precision", "kahan_summation"),
    "Everything else": (
        "algorithm",
        "name",
        "maximize",
        "foreach",
        "statistics_every",
        "differentiable",
        "shard_state",
        "jit_compile",
        "no_deprecation_warning",
        "recipe",
    ),
}

MEANING = {
    "lookahead_steps": "go back part of the way every so many updates; `None` for never.",
    "lookahead_alpha": "the part of the way that is kept, in (0, 1].",
    "split": "orthogonalise so many equal parts of the last axis each by itself.",
    "use_scheduler": "False keeps the schedule's options but does not use them: the rate is `learning_rate`.",
    "weight_decay": "the decay rate; `None` for no decay.",
    "differential_learning_rates": "pattern → multiplier of the rate.",
    "sync_batchnorm": "let the callback adjust `BatchNormalization` layers; see [distribution](distribution.md).",
    "beta_1": "decay rate of the first moment, in [0, 1).",
    "beta_2": "decay rate of the second moment, in [0, 1).",
    "beta_3": "decay rate of the third moment, in [0, 1).",
    "epsilon": "outside the square root, after bias correction; `adadelta`: inside; > 0.",
    "rho": "decay rate of the means of squares, in [0, 1).",
    "momentum": "in [0, 1); 0 keeps no state, except in `lars`.",
    "amsgrad": "use the largest second moment so far.",
    "correct_bias": "False: no bias correction, as the original BERT trained.",
    "nesterov": "step along g + momentum b.",
    "dampening": "the gradient enters the buffer with 1 - dampening; the first one fully. In [0, 1].",
    "algorithm": "a name from [the list](algorithms.md); an argument of `Optimizer` only.",
    "name": "of the optimizer, as in Keras.",
    "learning_rate": "number, schedule, or callable without arguments; with schedule options it is the peak.",
    "clipnorm": "limit of the norm of each variable's gradient.",
    "clipvalue": "limit of each entry of the gradient.",
    "global_clipnorm": "limit of the norm over all variables.",
    "clip_method": "`norm`, `value`, `adaptive` or `agc`.",
    "clip_value": "the limit of `norm` and `value`; beside `adaptive`, the smaller one wins.",
    "adaptive_clipping": "dictionary: `enable`, `percentile` (10), `history_length` (1000), `min_clip_value`, "
    "`max_clip_value`.",
    "per_parameter_clipping": "the method acts on each variable by itself.",
    "clip_coeff": "of `agc`: a unit's gradient norm is at most this share of its weights' norm; 0.01 if not given.",
    "clip_output_layer": "`agc` clips the output layer too.",
    "gradient_accumulation_steps": "micro-batches per update.",
    "use_ema": "keep an exponential moving average of the weights; `fit` ends with it in the model.",
    "ema_momentum": "the share of the old average that stays at each update.",
    "ema_overwrite_frequency": "every so many updates the weights become their average.",
    "layer_wise_lr_decay": "d: the rate is multiplied by d^(deepest - depth).",
    "layer_depths": "pattern → depth, instead of the depths that the variables' paths give.",
    "groups": "list of dictionaries with a `pattern` and any of `rate`, `weight_decay`, `algorithm` with its options, "
    "and clipping. Another number of groups after build: no.",
    "scheduler_type": "name of the shape.",
    "peak_learning_rate": "the largest rate, P; wins over `learning_rate`.",
    "min_learning_rate": "the floor, m: at most P. `one_cycle`: P / 250000 if not given.",
    "warmup_init_lr": "rate of the first update, where there is a warmup. `one_cycle`: P / 25 if not given.",
    "warmup_steps": "updates of the warmup, W. `one_cycle`: 30 % of T if not given.",
    "warmup_ratio": "W as a share of T, rounded up, under T; excludes `warmup_steps`.",
    "min_lr_ratio": "m as a share of P; excludes `min_learning_rate`.",
    "decay_ratio": "`decay_steps` as a share of T, rounded down; excludes `decay_steps`.",
    "total_steps": "updates in all, T, warmup included. Every shape accepts it.",
    "power": "exponent, above 0.",
    "cosine_cycles": "how many times to go from P to m; need not be whole.",
    "cosine_restarts": "restart every `restart_period` updates.",
    "restart_period": "updates of the first cycle.",
    "restart_decay": "factor on the peak at each restart.",
    "restart_multiplier": "factor on the cycle's length at each restart.",
    "restart_warmup_steps": "updates of a linear rise at the beginning of each cycle after the first.",
    "timescale": "updates; not given: W, or 10000 without warmup.",
    "decay_steps": "`wsd` (required): the last updates, which decay; `exponential`: updates per factor `decay_rate`.",
    "decay_rate": "factor per `decay_steps` updates.",
    "decay_shape": "`linear`, `cosine` or `1-sqrt`.",
    "boundaries": "updates at which the rate changes.",
    "factors": "one per boundary, relative to P.",
    "cycle_steps": "updates of a cycle.",
    "cycle_decay": "factor on P - m per cycle.",
}
"""What the docstrings of `OptimizerConfig` and of the rules do not say, or say for several options at once."""

DEFAULTS = {
    "scheduler_type": "`cosine_with_warmup`; with options of the warmup alone, `constant_with_warmup`",
    "peak_learning_rate": "`learning_rate`",
    "total_steps": "from `fit` or `attach`, if the shape needs it",
}

CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "weight_decay": ({"weight_decay": 0.1}, 0.2),
    "weight_decay_mode": ({"weight_decay": 0.1}, "l2"),
    "clipnorm": ({"clipnorm": 1.0}, 2.0),
    "clipvalue": ({"clipvalue": 1.0}, 2.0),
    "global_clipnorm": ({"global_clipnorm": 1.0}, 2.0),
    "clip_method": ({"clip_method": "norm", "clip_value": 1.0}, "value"),
    "clip_value": ({"clip_method": "norm", "clip_value": 1.0}, 2.0),
    "adaptive_clipping": ({"clip_method": "adaptive"}, {"percentile": 20}),
    "per_parameter_clipping": ({"clip_method": "norm", "clip_value": 1.0}, True),
    "clip_coeff": ({"clip_method": "agc", "clip_coeff": 0.1}, 0.2),
    "clip_output_layer": ({"clip_method": "agc", "clip_coeff": 0.1}, True),
    "skip_spikes": ({"skip_spikes": 4.0}, 5.0),
    "gradient_accumulation_steps": ({"gradient_accumulation_steps": 2}, 3),
    "nonfinite": ({}, "propagate"),
    "adjust_rate": ({}, "original"),
    "newton_schulz_steps": ({}, 6),
    "split": ({}, 2),
    "state_precision": ({}, "bfloat16"),
    "lookahead_steps": ({}, 5),
    "lookahead_alpha": ({"lookahead_steps": 5}, 0.25),
    "remainder": ({}, "carry"),
    "loss_scale_factor": ({}, 2.0),
    "use_ema": ({}, True),
    "ema_momentum": ({"use_ema": True}, 0.5),
    "ema_overwrite_frequency": ({"use_ema": True}, 2),
    "layer_wise_lr_decay": ({}, 0.5),
    "layer_depths": ({"layer_wise_lr_decay": 0.5}, {"w": 0}),
    "differential_learning_rates": ({}, {"w": 2.0}),
    "groups": ({"groups": [{"pattern": "w", "rate": 1.0}]}, [{"pattern": "w", "rate": 2.0}]),
    "normalize_gradients": ({"gradient_accumulation_steps": 2}, False),
    "loss_divided": ({"gradient_accumulation_steps": 2}, True),
    "defer_clip_until_accumulation": ({"gradient_accumulation_steps": 2}, False),
    "jit_compile": ({}, True),
    "foreach": ({}, False),
    "beta_1": ({}, 0.5),
    "beta_2": ({}, 0.5),
    "epsilon": ({}, 1e-3),
    "correct_bias": ({}, False),
    "momentum": ({"momentum": 0.9}, 0.5),
    "nesterov": ({"momentum": 0.9}, True),
    "dampening": ({"momentum": 0.9}, 0.5),
}
"""Option -> what is set before, and its value afterwards. Those not here are switched on."""

ELSEWHERE = {
    "algorithm": "no",
    "name": "no",
    "learning_rate": "number: yes",
    "use_scheduler": "new trace",
    "weight_decay_exclude": "no",
    "adam_pattern": "no, where it changes the algorithm of a variable",
    "max_precondition_dim": "no, where it changes which sides of a variable are rotated",
    "kahan_summation": "no, where there are bfloat16 variables",
}

INTRODUCTION = """\
# Options

This page is written by [docs/scripts/options.py](scripts/options.py). Do not edit it.

`Optimizer(algorithm, **options)` takes every option below that its algorithm has. The classes (`Adam`, `Lion`, …) take
the same ones; their arguments that Keras has too come first, with Keras' positions and defaults. `reconfigure`, the
`configure_*` methods and `OptimizerConfig` use the same names. An unknown name is an error that names the nearest one.

The column *default* is that of `Optimizer`. [A few classes](#defaults-of-the-classes) have others, mostly because Keras
has.

The column *after build* says what happens when the option changes once the optimizer has made its state:

- *yes*: the new value is used from the next update on. Nothing is traced again.
- *new trace*: compiled steps are dropped. In `fit`, use a callback of this package, else the old step stays.
- *no*: an error, since the state would not fit.

Switching something on that was off is a new trace at least: a first clip limit, a first `weight_decay`.
"""


def page() -> str:
    """The page."""
    parts = [INTRODUCTION]
    documented = _arguments_in(config.OptimizerConfig)
    for topic, names in TOPICS.items():
        rows = [
            (*_named(name), _default(name), _meaning(name, documented), after_build("adam", name)) for name in names
        ]
        parts.append(f"## {topic}\n\n{markdown(('option', 'aliases', 'default', 'meaning', 'after build'), rows)}\n")
    parts.append(f"## Options of the algorithms\n\n{_rules_table()}\n")
    parts.append(f"## Defaults of the classes\n\nWhere `Optimizer` has others.\n\n{_classes_table()}\n")
    parts.append(_schedule_section())
    return "\n".join(parts)


def _rules_table() -> str:
    owners: dict[str, list[str]] = {}
    for algorithm, rule in RULES.items():
        for field in dataclasses.fields(rule):
            owners.setdefault(field.name, []).append(algorithm)
    rows = []
    for name, algorithms in owners.items():
        text = _meaning(name, _arguments_in(RULES[algorithms[0]]))
        of = ", ".join(f"`{algorithm}`" for algorithm in algorithms)
        rows.append((*_named(name), of, _rule_defaults(name, algorithms), text, after_build(algorithms[0], name)))
    return markdown(("option", "aliases", "algorithms", "default", "meaning", "after build"), rows)


def _classes_table() -> str:
    rows = []
    for algorithm in ck.algorithms():
        ours = getattr(ck, algorithm.class_name)().get_config()
        general = ck.Optimizer(algorithm.name).get_config()
        cells = [f"`{name}={value!r}`" for name, value in ours.items() if name != "name" and value != general[name]]
        if cells:
            rows.append((f"`{algorithm.class_name}`", ", ".join(cells)))
    return markdown(("class", "defaults"), rows)


def _rule_default(algorithm: str, name: str) -> Any:
    return next(field.default for field in dataclasses.fields(RULES[algorithm]) if field.name == name)


def _rule_defaults(name: str, algorithms: list[str]) -> str:
    """The default that most have, and those of the others."""
    values = [_rule_default(algorithm, name) for algorithm in algorithms]
    usual = max(values, key=values.count)
    others = [f"`{v!r}` ({a})" for a, v in zip(algorithms, values, strict=True) if v != usual]
    return "; ".join([f"`{usual!r}`", *others])


def _another(value: Any) -> Any:
    """A value that an option of an algorithm can have beside its default."""
    if isinstance(value, bool):
        return not value
    return 2 if value is None else value + 1 if isinstance(value, int) else value / 2 or 0.5


def _schedule_section() -> str:
    aliases = _reversed(plan.ALIASES)
    rows = []
    for name in ("scheduler_type", *ARGUMENTS, *plan.RATIOS):
        of = [shape for shape in SCHEDULES if plan.RATIOS.get(name, name) in _fields(shape)]
        every = name in ("scheduler_type", "total_steps") or len(of) == len(SCHEDULES)
        shapes = "all" if every else ", ".join(f"`{shape}`" for shape in of)
        rows.append((f"`{name}`", _codes(aliases.get(name, ())), shapes, _schedule_default(name, of), MEANING[name]))
    table = markdown(("option", "aliases", "shapes", "default", "meaning"), rows)
    return (
        "## Options of the schedule\n\nSteps are counted in updates. A change is a new trace. The shapes are on "
        f"[their own page](schedules.md).\n\n{table}\n"
    )


def _fields(shape: str) -> dict[str, Any]:
    """Argument -> default of a shape."""
    return {field.name: field.default for field in dataclasses.fields(SCHEDULES[shape])}


def _schedule_default(name: str, shapes: Iterable[str]) -> str:
    """The default in the first shape that has it; `MEANING` says where another has its own."""
    if name in DEFAULTS:
        return DEFAULTS[name]
    default = next(_fields(shape).get(name) for shape in shapes)
    return "required" if default is dataclasses.MISSING else "" if default is None else f"`{default!r}`"


def after_build(algorithm: str, name: str) -> str:
    """Whether an option can change once the optimizer is built: tried, with a rate that counts its traces."""
    if name in ELSEWHERE:
        return ELSEWHERE[name]
    traces = []

    def rate() -> float:
        traces.append(name)
        return 0.1

    of_rule = any(field.name == name for field in dataclasses.fields(RULES[algorithm]))
    before, value = CHANGES.get(name) or ({}, _another(_rule_default(algorithm, name)) if of_rule else True)
    options = {"algorithm": algorithm, "jit_compile": False} | before
    w, g = keras.Variable([[1.0, 2.0], [3.0, 4.0]], name="w"), keras.ops.ones((2, 2))
    optimizer = ck.Optimizer(learning_rate=rate, **options)
    optimizer.apply([g], [w])
    try:
        optimizer.reconfigure({name: value})
    except ck.ConfigError:
        return "no"
    traced = len(traces)
    optimizer.apply([g], [w])
    return "yes" if len(traces) == traced else "new trace"


def _named(name: str) -> tuple[str, str]:
    return f"`{name}`", _codes(_reversed(config.ALIASES).get(name, ()))


def _default(name: str) -> str:
    if name == "algorithm":
        return "`'adam'`"
    if name == "learning_rate":
        return "[the algorithm's](algorithms.md)"
    if name == "use_scheduler":
        return "`True` with schedule options"
    return f"`{config.parse({}).to_options().get(name)!r}`"


def _meaning(name: str, documented: Mapping[str, str]) -> str:
    return MEANING.get(name) or documented[name]


def _arguments_in(cls: type) -> dict[str, str]:
    """Argument -> its text in the docstring."""
    lines = (inspect.getdoc(cls) or "").splitlines()
    found: dict[str, str] = {}
    names: list[str] = []
    for line in lines[lines.index("Args:") + 1 :]:
        if line and not line.startswith(" "):
            break
        if start := re.fullmatch(r"    ([\w, ]+): (.*)", line):
            names = start[1].split(", ")
            found |= dict.fromkeys(names, start[2])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _reversed(aliases: Mapping[str, str]) -> dict[str, list[str]]:
    result: dict[str, list[str]] = {}
    for alias, name in aliases.items():
        result.setdefault(name, []).append(alias)
    return result


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def markdown(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table."""
    lines = [head, ("---",) * len(head), *(tuple(cell.replace("|", r"\|") for cell in row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
