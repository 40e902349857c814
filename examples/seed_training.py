"""The project's founding document, second half: gradients, metrics, plots, convergence and tuning, as it writes them.

    python examples/seed_training.py            # about 6 minutes
    python examples/seed_training.py --quick    # a short search

Its model and data are a small regression here.
"""

from __future__ import annotations

import sys

import keras
import numpy as np

from capibara_keras import Optimizer, OptimizerAutoTuner

RNG = np.random.default_rng(0)
X = RNG.normal(size=(256, 4)).astype("float32")
Y = X @ RNG.normal(size=(4, 1)).astype("float32")


def network() -> keras.Model:
    """What is trained."""
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])


def clipped_and_accumulated() -> None:
    """An analysis of gradients, and 16 micro-batches for one update."""
    optimizer = Optimizer("adam", learning_rate=1e-2)
    adaptive = {"enable": True, "percentile": 10, "history_length": 1000, "min_clip_value": 0.1, "max_clip_value": 10.0}
    clip = {"clip_method": "norm", "clip_value": 1.0, "adaptive_clipping": adaptive}
    optimizer.configure_gradient_clipping(clip | {"per_parameter_clipping": False, "clip_coeff": 0.01})
    kernel = keras.Variable(np.zeros((4, 1), "float32"), name="kernel")
    for start in range(0, 256, 32):  # of the mean of (x·kernel - y)² / 2
        x, y = X[start : start + 32], Y[start : start + 32]
        gradients = [keras.ops.transpose(x) @ (x @ kernel - y) / 32]
        optimizer.step(gradients, [kernel])
    found = optimizer.analyze_gradients(gradients=gradients, include_histogram=True, include_layer_wise_stats=True)
    print(f"Gradient norm distribution: {found['norm_percentiles']}")
    print(f"Layer-wise gradient norms: {found['layer_norms']}")
    print(f"Clipping frequency: {found['clipping_frequency']:.3f}")

    window = {"accumulation_steps": 16, "normalize_gradients": True, "sync_batchnorm": True, "scale_loss": True}
    optimizer.configure_gradient_accumulation(window | {"defer_clip_until_accumulation": True})
    for start in range(0, 256, 16):
        x, y = X[start : start + 16], Y[start : start + 16]
        optimizer.accumulate_gradients([keras.ops.transpose(x) @ (x @ kernel - y) / 16 / 16], [kernel])  # loss / 16
    optimizer.step_with_accumulated_gradients()
    optimizer.zero_grad()
    print(f"Updates: {int(optimizer.iterations)}")


def watched() -> None:
    """Metrics, alerts, plots and convergence of a training."""
    optimizer, model, history, losses = Optimizer("adam", learning_rate=1e-2, statistics_every=1), network(), [], []
    model.compile(optimizer, "mse")
    for _ in range(40):
        losses.append(float(model.train_on_batch(X, Y)))
        history.append(optimizer.statistics())
    metrics = optimizer.get_optimization_metrics()
    print("Training dynamics:", {name: f"{metrics[name]:.2g}" for name in ("current_lr", "grad_norm", "param_norm")})
    print("Convergence:", {name: f"{metrics[name]:.2g}" for name in ("loss_smoothness", "progress_score")})
    print("Stability:", {name: f"{metrics[name]:.2g}" for name in ("explosion_risk", "vanishing_risk", "lr_stability")})
    for alert in optimizer.check_optimization_health():
        print(f"{alert.level}: {alert.message}. Suggestion: {alert.suggestion}")
    kinds = ["learning_rate_schedule", "gradient_norm_evolution", "parameter_updates", "loss_landscape_approximation"]
    plots = optimizer.generate_training_plots(history, kinds, save_plots=True, plot_directory="runs/seed/plots")
    print("Plots:", ", ".join(str(path) for path in plots.values()))
    found = optimizer.analyze_convergence(losses, [r.gradient_norm for r in history], 1000, smoothing_factor=0.99)
    print(f"Convergence rate: {found['rate']:.2e}, eta: {found['eta_steps']}, stability: {found['stability']:.3f}")


def tuned(quick: bool) -> None:
    """The search, and the optimizer that it found."""
    space = {"learning_rate": [1e-5, 1e-3, "log"], "beta1": [0.85, 0.95, "uniform"], "beta2": [0.9, 0.999, "uniform"]}
    space |= {"weight_decay": [0.0, 0.2, "uniform"], "warmup_steps": [500, 5000, "int"]}
    space |= {"gradient_clip_norm": [0.1, 2.0, "uniform"]}
    trials, steps, model = 3 if quick else 50, 20 if quick else 5000, network()
    here = {"directory": "runs/seed/search", "overwrite": True}  # else a second run would go on with the first
    tuner = OptimizerAutoTuner(space, "validation_loss", "bayesian_optimization", trials, **here)
    model.compile(loss="mse")
    optimal = tuner.find_optimal_hyperparameters(
        model, (X, Y), (X, Y), max_steps_per_trial=steps, early_stopping_patience=1000
    )
    for name, value in optimal.items():
        print(f"  {name}: {value}")
    print(type(Optimizer.from_config(optimal)).__name__)


if __name__ == "__main__":
    clipped_and_accumulated()
    watched()
    tuned(quick="--quick" in sys.argv)
