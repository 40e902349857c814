"""The project's founding document as one script: each of its calls, in its order, with its options.

    python examples/seed.py            # about a minute
    python examples/seed.py --quick    # a short search

What it names and does not define (gradients, parameters, a model and its data) is a small regression here.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np

from capibara_keras import Optimizer, OptimizerAutoTuner

RNG = np.random.default_rng(0)
X = RNG.normal(size=(256, 4)).astype("float32")
Y = X @ RNG.normal(size=(4, 1)).astype("float32")


def network() -> keras.Model:
    """What is trained."""
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])


def steps_and_schedules(gradients: list, parameters: list) -> Optimizer:
    """The base optimizer, its schedules, a step with metrics."""
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
    step = optimizer.step(gradients=gradients, parameters=parameters, step_number=10000, return_metrics=True)
    print(f"Learning rate: {step.learning_rate:.2e}, gradient norm: {step.gradient_norm:.4f}")
    print(f"Parameter norm: {step.parameter_norm:.4f}, weight decay applied: {step.weight_decay_loss:.6f}")
    optimizer.configure_cosine_scheduler(
        {
            "scheduler_type": "cosine_with_warmup",
            "warmup_steps": 2000,
            "max_steps": 100000,
            "max_learning_rate": 6e-4,
            "min_learning_rate": 6e-5,
            "cosine_cycles": 1.0,
            "warmup_init_lr": 0.0,
        }
    )
    print(f"Learning rate at step 50000: {optimizer.get_learning_rate(step=50000):.2e}")
    linear = {"scheduler_type": "linear_with_warmup", "warmup_steps": 5000, "training_steps": 200000}
    optimizer.configure_linear_scheduler(linear | {"start_lr": 0.0, "peak_lr": 3e-4, "end_lr": 1e-5})
    poly = {"scheduler_type": "polynomial", "power": 0.5, "warmup_steps": 1000, "total_steps": 500000}
    optimizer.configure_polynomial_scheduler(poly | {"end_learning_rate": 1e-6})
    return optimizer


def constructors() -> None:
    """By algorithm, for large models, for fine-tuning, by purpose."""
    adam = {"learning_rate": 3e-4, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.1}
    extras = {"amsgrad": False, "maximize": False, "foreach": True, "differentiable": False}
    Optimizer.create_adam({"algorithm": "adam", **adam, **extras})
    bias = {"correct_bias": True, "no_deprecation_warning": True}
    Optimizer.create_adamw({"algorithm": "adamw", **adam, "learning_rate": 6e-4, **bias})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch refuses nesterov together with dampening
        sgd = {"algorithm": "sgd", "learning_rate": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
        Optimizer.create_sgd(sgd | {"nesterov": True, "dampening": 0.1})
    large = {"algorithm": "adamw", **adam, "learning_rate": 1.5e-4, "gradient_clip_norm": 1.0}
    steps = {"gradient_accumulation_steps": 8, "scheduler_type": "cosine_with_warmup"}
    Optimizer.create_for_large_model(large | steps | {"warmup_ratio": 0.03, "min_lr_ratio": 0.1})
    tune = {"algorithm": "adam", **adam, "learning_rate": 5e-5, "beta2": 0.999, "weight_decay": 0.01}
    layers = {"embedding": 0.1, "encoder": 1.0, "head": 2.0}
    schedule = {"gradient_clip_norm": 0.5, "scheduler_type": "linear_with_warmup", "warmup_steps": 500}
    more = {"layer_wise_lr_decay": 0.95, "differential_learning_rates": layers}
    Optimizer.create_for_finetuning(tune | schedule | more)
    collection = {
        "pretraining_large": Optimizer.create_pretraining_optimizer(
            model_size="large", dataset_size="multi_billion_tokens", target_steps=500000
        ),
        "finetuning_fast": Optimizer.create_finetuning_optimizer(
            task_type="text_classification", dataset_size="medium", target_epochs=3
        ),
        "resource_efficient": Optimizer.create_efficient_optimizer(
            memory_budget="8GB", compute_budget="medium", prioritize="memory"
        ),
        "research_flexible": Optimizer.create_research_optimizer(
            experimental_features=True, detailed_logging=True, custom_schedulers=True
        ),
    }
    for name, one in collection.items():
        print(f"{name}: {one.get_config()['algorithm']}")


def gradients_and_training(optimizer: Optimizer) -> None:
    """Clipping, accumulation, metrics, alerts, plots, convergence."""
    adaptive = {"enable": True, "percentile": 10, "history_length": 1000, "min_clip_value": 0.1, "max_clip_value": 10.0}
    clip = {"clip_method": "norm", "clip_value": 1.0, "adaptive_clipping": adaptive}
    optimizer.configure_gradient_clipping(clip | {"per_parameter_clipping": False, "clip_coeff": 0.01})
    gradients = {"dense/kernel": keras.ops.array(X[:8]), "dense/bias": keras.ops.array(X[0])}
    analysis = Optimizer("adam").analyze_gradients(gradients, include_histogram=True, include_layer_wise_stats=True)
    print(f"Layer-wise gradient norms: {analysis['layer_norms']}")

    window = {"accumulation_steps": 16, "normalize_gradients": True, "sync_batchnorm": True, "scale_loss": True}
    accumulating = Optimizer("adam")
    accumulating.configure_gradient_accumulation(window | {"defer_clip_until_accumulation": True})
    w = keras.Variable([1.0])
    for _ in range(16):
        accumulating.accumulate_gradients([keras.ops.array([0.1 / 16])], [w])
    accumulating.step_with_accumulated_gradients()
    accumulating.zero_grad()

    model, records, losses = network(), [], []
    optimizer = Optimizer("adam", learning_rate=1e-2, statistics_every=1)
    model.compile(optimizer, "mse")
    for _ in range(40):
        losses.append(float(model.train_on_batch(X, Y)))
        records.append(optimizer.statistics())
    metrics = optimizer.get_optimization_metrics()
    print("Dynamics:", {name: f"{metrics[name]:.2g}" for name in ("current_lr", "grad_norm", "update_ratio")})
    for alert in optimizer.check_optimization_health():
        print(f"{alert.level}: {alert.message}. {alert.suggestion}")
    kinds = ["learning_rate_schedule", "gradient_norm_evolution", "parameter_updates", "loss_landscape_approximation"]
    with tempfile.TemporaryDirectory() as folder:
        plots = optimizer.generate_training_plots(records, kinds, save_plots=True, plot_directory=folder)
        print("Plots:", [Path(path).name for path in plots.values()])
    fate = optimizer.analyze_convergence(losses, [r.gradient_norm for r in records], 1000, smoothing_factor=0.99)
    print(f"Convergence rate: {fate['rate']:.2e}, stability: {fate['stability']:.3f}, eta: {fate['eta_steps']}")


def tuned(quick: bool) -> None:
    """The search, and the optimizer that it found."""
    space = {
        "learning_rate": [1e-5, 1e-3, "log"],
        "beta1": [0.85, 0.95, "uniform"],
        "beta2": [0.9, 0.999, "uniform"],
        "weight_decay": [0.0, 0.2, "uniform"],
        "warmup_steps": [500, 5000, "int"],
        "gradient_clip_norm": [0.1, 2.0, "uniform"],
    }
    tuner = OptimizerAutoTuner(space, "validation_loss", "bayesian_optimization", max_trials=3 if quick else 50)
    model = network()
    model.compile("adam", "mse")
    optimal = tuner.find_optimal_hyperparameters(
        model=model,
        train_dataset=(X, Y),
        val_dataset=(X, Y),
        max_steps_per_trial=20 if quick else 5000,
        early_stopping_patience=1000,
    )
    print("Optimal:", {name: value for name, value in optimal.items() if name in ("learning_rate", "beta_1")})
    Optimizer.from_config(optimal)


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a short search")
    quick = parser.parse_args().quick
    keras.utils.set_random_seed(0)
    parameters = [keras.Variable(X[:4]), keras.Variable(X[0])]
    optimizer = steps_and_schedules([keras.ops.array(X[4:8]), keras.ops.array(X[1])], parameters)
    gradients_and_training(optimizer)
    constructors()
    tuned(quick)


if __name__ == "__main__":
    main()
