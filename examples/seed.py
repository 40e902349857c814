"""The project's founding document, first half: optimizers, algorithms, schedules and factories, as it writes them.

    python examples/seed.py              # seconds; the second half is examples/seed_training.py

Its model, gradients and steps are two small variables here.
"""

from __future__ import annotations

import keras

from capibara_keras import Optimizer

LLM = {"learning_rate": 3e-4, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.1}
"""What several of its configurations begin with."""


def base() -> Optimizer:
    """The base optimizer, and a step with metrics."""
    optimizer = Optimizer(
        algorithm="adam",
        learning_rate=1e-4,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-8,
        weight_decay=0.01,
        gradient_clip_norm=1.0,
        use_scheduler=True,
        scheduler_type="cosine_with_warmup",
    )
    restarts = {"cosine_restarts": True, "restart_decay": 0.8, "restart_period": 100000}
    optimizer.configure_scheduler({"warmup_steps": 10000, "max_steps": 500000, "min_learning_rate": 1e-6, **restarts})
    parameters = [keras.Variable([[1.0, 2.0], [3.0, 4.0]]), keras.Variable([0.5, -0.5])]
    gradients = [keras.ops.array([[3.0, 0.0], [0.0, 4.0]]), keras.ops.array([1.0, 1.0])]
    step = optimizer.step(gradients=gradients, parameters=parameters, step_number=10000, return_metrics=True)
    print(f"Learning rate: {step.learning_rate:.2e}")
    print(f"Gradient norm: {step.gradient_norm:.4f}")
    print(f"Parameter norm: {step.parameter_norm:.4f}")
    print(f"Weight decay applied: {step.weight_decay_loss:.6f}")
    return optimizer


def algorithms() -> list[Optimizer]:
    """Adam and AdamW for language models, SGD with momentum."""
    adam = {"algorithm": "adam", **LLM, "amsgrad": False, "maximize": False, "foreach": True, "differentiable": False}
    adamw = {"algorithm": "adamw", **LLM, "learning_rate": 6e-4, "correct_bias": True, "no_deprecation_warning": True}
    sgd = {"algorithm": "sgd", "learning_rate": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
    sgd |= {"nesterov": True, "dampening": 0.1}  # a warning says that torch refuses the two together
    return [Optimizer.create_adam(adam), Optimizer.create_adamw(adamw), Optimizer.create_sgd(sgd)]


def schedules(optimizer: Optimizer) -> None:
    """Each replaces the one before."""
    cosine = {"scheduler_type": "cosine_with_warmup", "warmup_steps": 2000, "max_steps": 100000}
    cosine |= {"max_learning_rate": 6e-4, "min_learning_rate": 6e-5, "cosine_cycles": 1.0, "warmup_init_lr": 0.0}
    optimizer.configure_cosine_scheduler(cosine)
    print(f"Learning rate at step 50000: {optimizer.get_learning_rate(step=50000):.2e}")
    linear = {"scheduler_type": "linear_with_warmup", "warmup_steps": 5000, "training_steps": 200000}
    optimizer.configure_linear_scheduler(linear | {"start_lr": 0.0, "peak_lr": 3e-4, "end_lr": 1e-5})
    poly = {"scheduler_type": "polynomial", "power": 0.5, "warmup_steps": 1000, "total_steps": 500000}
    optimizer.configure_polynomial_scheduler(poly | {"end_learning_rate": 1e-6})


def specialised() -> list[Optimizer]:
    """For large models, and for fine-tuning with rates by layer."""
    large = {"algorithm": "adamw", **LLM, "learning_rate": 1.5e-4, "gradient_clip_norm": 1.0}
    large |= {"gradient_accumulation_steps": 8, "scheduler_type": "cosine_with_warmup"}
    large |= {"warmup_ratio": 0.03, "min_lr_ratio": 0.1}
    tune = {"algorithm": "adam", **LLM, "learning_rate": 5e-5, "beta2": 0.999, "weight_decay": 0.01}
    tune |= {"gradient_clip_norm": 0.5, "scheduler_type": "linear_with_warmup", "warmup_steps": 500}
    tune |= {"layer_wise_lr_decay": 0.95}
    tune |= {"differential_learning_rates": {"embedding": 0.1, "encoder": 1.0, "head": 2.0}}
    return [Optimizer.create_for_large_model(large), Optimizer.create_for_finetuning(tune)]


def factories() -> dict[str, Optimizer]:
    """By purpose."""
    pretraining = {"model_size": "large", "dataset_size": "multi_billion_tokens", "target_steps": 500000}
    finetuning = {"task_type": "text_classification", "dataset_size": "medium", "target_epochs": 3}
    efficient = {"memory_budget": "8GB", "compute_budget": "medium", "prioritize": "memory"}
    research = {"experimental_features": True, "detailed_logging": True, "custom_schedulers": True}
    return {
        "pretraining_large": Optimizer.create_pretraining_optimizer(**pretraining),
        "finetuning_fast": Optimizer.create_finetuning_optimizer(**finetuning),
        "resource_efficient": Optimizer.create_efficient_optimizer(**efficient),
        "research_flexible": Optimizer.create_research_optimizer(**research),
    }


if __name__ == "__main__":
    schedules(base())
    for one in [*algorithms(), *specialised()]:
        print(f"{one.configuration.algorithm}, decay {one.weight_decay}")
    for name, one in factories().items():
        print(f"{name}: {one.configuration.algorithm}")
