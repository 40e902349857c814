"""A page about the training that is going on."""

from __future__ import annotations

import atexit
import time
from pathlib import Path
from typing import Any

from capibara_keras import errors
from capibara_keras.callbacks.health_monitor import HealthMonitor
from capibara_keras.files import writable_directory
from capibara_keras.monitoring import Alert
from capibara_keras.monitoring.report import Story, write_page
from capibara_keras.warning import warn
from capibara_keras.watch import Watch

__all__ = ["TrainingReport"]

SHARE = 50
"""The page waits at least so many times as long as it takes to write: 2 % of the time."""


class TrainingReport(HealthMonitor):
    """A `HealthMonitor` that also keeps a page up to date: `report.html`, with PNG and SVG at the end of `fit`.

    The page shows loss, rate, norms and layers of the whole training in nine panels, the alerts with what to do about
    them, and the configuration. Its memory does not grow: rows are merged, and peaks kept. It replaces `HealthMonitor`
    in the list of callbacks. A training that an error or Ctrl-C ended has its last page when Python ends at the latest.
    A disk that is full costs pages, not the training.

    Args:
        directory: of the page; is made if it is not there.
        seconds: between two versions of the page, at least; 0 writes only at the end.
        title: of the page.
        **monitor: arguments of `HealthMonitor`.

    Raises:
        ConfigError: a directory that cannot be written, or a bad argument.

    >>> import capibara_keras as ck, keras, numpy as np, tempfile
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(ck.Adam(), "mse")
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     report = ck.TrainingReport(directory)
    ...     _ = model.fit(np.ones((64, 1)), np.ones((64, 1)), batch_size=4, verbose=0, callbacks=[report])
    ...     print(report.page.name, report.page.exists())
    report.html True
    """

    def __init__(
        self, directory: str | Path, seconds: float = 60.0, title: str = "Training report", **monitor: Any
    ) -> None:
        super().__init__(**monitor)
        self.directory = writable_directory("directory", directory)
        self.seconds = errors.number("seconds", seconds, 0)
        self.title = title
        self.story = Story(())
        self._due = 0.0
        self._watched: Watch | None = None
        self._before_fit = self._before_story = 0  # alerts that had been raised

    @property
    def page(self) -> Path:
        """The HTML file."""
        return self.directory / "report.html"

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """The first page comes after `seconds`."""
        super().on_train_begin(logs)
        self._before_fit = self.raised
        self._due = time.monotonic() + self.seconds
        atexit.unregister(self._interrupted)
        atexit.register(self._interrupted)

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """If a gradient that is not finite ends training here, the page says so."""
        try:
            super().on_train_batch_begin(batch, logs)
        except FloatingPointError:
            self._read()
            self._try_to_write(pictures=True)
            raise

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Take in the validation loss."""
        super().on_epoch_end(epoch, logs)
        if self.watch is not None and logs and "val_loss" in logs:
            self.story.validate(float(self.watch.monitor.history.latest.update), float(logs["val_loss"]))

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """The last page, with pictures."""
        super().on_train_end(logs)
        self._try_to_write(pictures=True)
        atexit.unregister(self._interrupted)

    def validate(self, loss: float) -> None:
        """Take in a loss on other data that `fit` does not know of."""
        if self.watch is not None:
            self._handle(self.watch.validate(loss))
            self.story.validate(float(self.watch.monitor.history.latest.update), loss)
            self.story.alerts = self._of_story()

    def write(self, pictures: bool = False) -> None:
        """Write the page as of the last reading; nothing before the first update."""
        if self.story.updates:
            configuration = _configuration(self.optimizer)
            write_page(self.story, self.directory, title=self.title, configuration=configuration, pictures=pictures)

    def _read(self) -> None:
        super()._read()
        assert self.watch is not None
        history, subject = self.watch.monitor.history, self.watch.monitor.subject
        if self._watched is not self.watch and self.watch.observations:
            if self.watch.observations[0].update <= self.story.last_update:
                self.story, self._before_story = Story(subject.layers), self._before_fit
            self._watched = self.watch
        silent = history.silent_share(20) if len(history.silent) else None
        self.story.take(self.watch.observations, subject, silent)
        self.story.alerts = self._of_story()
        if self.seconds and time.monotonic() >= self._due:
            start = time.monotonic()
            self._try_to_write()
            end = time.monotonic()
            self._due = end + max(self.seconds, SHARE * (end - start))

    def _of_story(self) -> list[Alert]:
        """The alerts of the training that the page is about."""
        new = self.raised - self._before_story
        return self.alerts[-new:] if new else []

    def _try_to_write(self, pictures: bool = False) -> None:
        try:
            self.write(pictures)
        except errors.ConfigError as error:
            warn(f"the page was not written, the run goes on: {error}")

    def _interrupted(self) -> None:
        """`fit` was left without `on_train_end`."""
        self._try_to_write(pictures=True)


def _configuration(optimizer: Any) -> dict[str, Any]:
    """What can be shown of an optimizer, also where it cannot be saved."""
    try:
        return dict(optimizer.get_config())
    except errors.ConfigError:
        return dict(optimizer.configuration.to_options())
