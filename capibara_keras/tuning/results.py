"""What a search has found so far, for its user."""

from __future__ import annotations

import os
from pathlib import Path

import keras

from capibara_keras.errors import ConfigError
from capibara_keras.tuning import hparams, progress, report
from capibara_keras.tuning.state import Project
from capibara_keras.tuning.trials import Search, TrialRecord

__all__ = ["Results"]


class Results:
    """The half of `OptimizerAutoTuner` that reads.

    Args:
        project: the folder of the search.
        metric: its name in `fit`'s logs.
    """

    def __init__(self, project: Project, metric: str) -> None:
        self.project, self.metric = project, metric
        self._search: Search | None = None

    @property
    def trials(self) -> list[TrialRecord]:
        """All trials so far, in the order in which they were proposed."""
        return list(self._search.trials) if self._search else []

    @property
    def best(self) -> TrialRecord | None:
        """The best trial so far."""
        return self._search.best() if self._search else None

    def table(self, most: int | None = None) -> str:
        """The trials as text, best first.

        Args:
            most: rows at most; default: all.
        """
        return progress.table(self._known_search(), self.metric, most)

    def report(self, folder: str | os.PathLike[str] | None = None) -> dict[str, Path]:
        """Write figures (PNG, SVG), a page (HTML) and tables (CSV, JSON); also while the search goes on.

        Args:
            folder: default: "report" in the search's directory.

        Returns:
            Name -> path.

        Raises:
            ConfigError: there are no trials yet.
        """
        return report.write(self._known_search(), self.metric, self._report_folder(folder, "report"))

    def write_tensorboard(self, folder: str | os.PathLike[str] | None = None) -> None:
        """Write the trials that have ended for TensorBoard's HParams page; again later, those that came since.

        Args:
            folder: default: "tensorboard" in the search's directory.

        Raises:
            ConfigError: tensorboard is not installed, or there is no search yet.
        """
        hparams.write_tensorboard(self._known_search(), self._report_folder(folder, "tensorboard"))

    def _report_folder(self, folder: str | os.PathLike[str] | None, name: str) -> Path:
        return self.project.folder / name if folder is None else Path(folder)

    def load_best_weights(self, model: keras.Model) -> None:
        """Load the weights of the best trial, at its best step.

        Args:
            model: of the same architecture.
        """
        best = self._known_search().best()
        path = self.project.weights(best.number) if best else None
        if path is None or not path.exists():
            raise ConfigError(f"load_best_weights: {self.project.folder} holds no weights yet")
        optimizer, model.optimizer = getattr(model, "optimizer", None), None
        try:
            model.load_weights(path)
        finally:
            model.optimizer = optimizer

    def _known_search(self) -> Search:
        if self._search is None:
            raise ConfigError("there is no search yet: call find_optimal_hyperparameters first")
        return self._search
