"""How fast algorithms train: updates and time to a target on small workloads, with equal budgets for tuning.

It runs on JAX, where a stretch of training is one compiled function of weights, state and rate.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# One thread per process: times of runs beside each other are comparable.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
