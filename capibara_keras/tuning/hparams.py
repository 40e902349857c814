"""The trials of a search for TensorBoard's HParams page."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

from capibara_keras.errors import ConfigError
from capibara_keras.tuning.trials import Search, TrialRecord

__all__ = ["write_tensorboard"]


def write_tensorboard(search: Search, folder: Path) -> None:
    """A run for each trial that has ended, with its options, its end and its curves. Those that are there stay.

    Args:
        folder: of the runs, which are called `trial_0000` and so on.

    Raises:
        ConfigError: tensorboard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError("write_tensorboard needs the package tensorboard: pip install tensorboard")
    for trial in search.trials:
        run = folder / f"trial_{trial.number:04d}"
        if trial.done and not run.exists():
            begun = folder / f"writing_{os.getpid()}_{run.name}"  # so that a run is whole, or not there
            try:
                _write(trial, begun)
                os.replace(begun, run)
            finally:
                shutil.rmtree(begun, ignore_errors=True)


def _write(trial: TrialRecord, run: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    options: dict[str, Any] = {
        name: value if isinstance(value, (bool, int, float, str)) else repr(value)
        for name, value in trial.options.items()
    }
    good = trial.status in ("completed", "pruned")
    end = api_pb2.STATUS_SUCCESS if good else api_pb2.STATUS_FAILURE
    writer = EventFileWriter(str(run))
    for made in (summary.session_start_pb(options), summary.session_end_pb(end)):
        # beside TensorFlow they are of its own class, which an event of tensorboard does not take
        writer.add_event(Event(summary=Summary.FromString(made.SerializeToString())))
    for name, values in trial.curve.items():
        if name != "step":
            for step, value in zip(trial.curve["step"], values, strict=False):
                point = Summary(value=[Summary.Value(tag=name, simple_value=value)])
                writer.add_event(Event(step=step, summary=point))
    writer.close()
