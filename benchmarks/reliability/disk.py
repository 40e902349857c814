"""Full disks, and directories that cannot be written: what was there stays; the run goes on, or never begins."""

from __future__ import annotations

import contextlib
import resource
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.reliability.common import Ledger, network, regression

__all__ = ["run"]


def run(ledger: Ledger) -> None:
    """Each case once."""
    failures = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                problem = case(Path(folder))
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
        if problem:
            failures.append(f"{case.__name__}: {problem}")
    ledger.put("disk", {"count": len(CASES), "failures": failures})


@contextlib.contextmanager
def full_after(size: int) -> Iterator[None]:
    """No file can become larger than `size` bytes: writing fails as on a full disk."""
    usual = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, usual)


def resume_on_a_full_disk(folder: Path) -> str | None:
    """The run goes on, warns, and the state saved before is whole."""
    from capibara_keras.resuming import archive

    _fit(folder, stop=5)
    before = (folder / "latest.run").read_bytes()
    with full_after(len(before) // 2), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _fit(folder, stop=9)
    if not any("the run goes on without" in str(w.message) for w in caught):
        return "no warning"
    archive.read(folder / "latest.run")
    left = [path.name for path in folder.iterdir() if path.name.startswith("writing")]
    return f"left behind: {left}" if left else None


def monitor_on_a_full_disk(folder: Path) -> str | None:
    """The file of `HealthMonitor` is given up, the training is not."""
    import capibara_keras as ck

    model = network(ck.Adam())
    monitor = ck.HealthMonitor(path="/dev/full", every=1, print_fn=lambda text: None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(*regression(32), batch_size=8, verbose=0, callbacks=[monitor])
    return None if any("No space left" in str(w.message) for w in caught) else "no warning"


def search_on_a_full_disk(folder: Path) -> str | None:
    """The file of a search is as it was."""
    from capibara_keras.tuning.state import Project

    project, state = Project(folder / "search"), {"search": {}, "trials": {}}
    project.save(state)
    with full_after(50), contextlib.suppress(OSError):
        project.save(state | {"trials": {"0": ["x" * 5000]}})
        return "was written"
    return None if project.load()["trials"] == {} else "is another one now"


def directory_that_cannot_be_written(folder: Path) -> str | None:
    """Refused before the first batch."""
    import capibara_keras as ck

    try:
        _fit(Path("/proc/run"))
    except ck.ConfigError as error:
        return None if "cannot write" in str(error) else str(error)
    return "was accepted"


CASES: list[Callable[[Path], str | None]] = [
    resume_on_a_full_disk,
    monitor_on_a_full_disk,
    search_on_a_full_disk,
    directory_that_cannot_be_written,
]


class _Stop(Exception):
    pass


def _fit(folder: Path, stop: int | None = None) -> Any:
    import keras

    import capibara_keras as ck

    def end(batch: int, logs: Any = None) -> None:
        if batch == stop:
            raise _Stop

    model, resume = network(ck.Adam()), ck.Resume(folder, every=2, keep=True)
    data = resume.data(regression(48), 4)
    callbacks = [resume, keras.callbacks.LambdaCallback(on_train_batch_begin=end)]
    with contextlib.suppress(_Stop):
        model.fit(data, steps_per_epoch=data.steps, shuffle=False, verbose=0, callbacks=callbacks)
    return model
