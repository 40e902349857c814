"""The page about a training: what it shows, what it survives, how large it may get."""

from __future__ import annotations

import json
import math
import os
import re
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

import capibara_keras as ck
from capibara_keras.monitoring import Alert, Observation, Subject
from capibara_keras.monitoring.report import Story, write_page
from capibara_keras.monitoring.report.gradient_panels import histogram_panel
from capibara_keras.monitoring.report.loss_panels import verdict
from capibara_keras.monitoring.report.names import short_names
from capibara_keras.monitoring.report.panels import draw
from capibara_keras.monitoring.report.smoothing import smoothed
from tests.models import classifier, digits


def told(updates: int, loss=lambda t: math.exp(-t / 50) + 0.1, layers: int = 3, name: str = "block") -> Story:
    """A story with numbers for all panels."""
    paths = tuple(f"model/{name}_{i}/kernel" for i in range(layers))
    subject, story = Subject(paths, ((4, 4),) * layers), Story(())
    rng = np.random.default_rng(0)
    for t in range(updates):
        g = rng.lognormal(0, 0.3, layers)
        norm = float(np.linalg.norm(g))
        values = {
            "loss": loss(t),
            "learning_rate": 0.1,
            "gradient_norm": norm,
            "parameter_norm": 2.0,
            "update_norm": 0.01,
        }
        limits = {"clip_threshold": 1.0, "clipped": norm > 1}
        norms = {"gradient_norms": g, "parameter_norms": np.ones(layers), "update_norms": np.full(layers, 1e-3)}
        x = Observation(t, **values, **limits, **norms)
        story.take([x], subject, np.full(layers, 0.25))
    return story


def texts(figure) -> str:
    """Everything that a figure says."""
    return "\n".join(t.get_text() for t in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_what_happened_once_is_still_there_after_very_many_updates() -> None:
    story = told(9000, lambda t: 50.0 if t == 4321 else 1.0)
    assert len(story.series("loss")) <= 2000 and story.stride == 8
    assert np.nanmax(story.series("loss_high")) == 50.0
    assert story.series("update")[-1] == 8999
    assert [len(norms) for norms in story.then_and_now()] == [100, 100]
    assert story.by_layer("gradient").shape == (3, len(story.series("loss")))
    assert np.allclose(story.by_layer("silent"), 0.25)


def test_rows_are_means_of_what_they_stand_for() -> None:
    story = told(4096, lambda t: float(t))
    n = story.stride
    expected = [np.mean(range(i * n, (i + 1) * n)) for i in range(len(story.series("loss")))]
    assert np.allclose(story.series("loss"), expected)


def test_rates_are_per_update_however_many_a_row_stands_for() -> None:
    short, long = told(1500, lambda t: math.exp(-t / 300) + 0.1), told(6000, lambda t: math.exp(-t / 1200) + 0.1)
    assert long.stride == 4
    for story, tau in ((short, 300), (long, 1200)):
        found = verdict(story)
        assert found is not None
        if found.status == "converging":
            assert found.rate / story.stride == pytest.approx(1 / tau, rel=0.1)
        assert found.floor == pytest.approx(0.1, rel=0.1)


def test_every_panel_has_something_to_say() -> None:
    said = texts(draw(told(300), "mine"))
    assert "not known" not in said and "mine" in said
    for words in (
        "smoothed",
        "before clipping",
        "limit",
        "clipped",
        "block_0",
        "first 100 updates",
        "usual: 1e-4 to 1e-2",
    ):
        assert words in said


@pytest.mark.parametrize(
    "source",
    [
        {"loss": [1.0]},
        {"loss": [math.nan] * 40},
        {"loss": [1.0] * 40, "learning_rate": [0.0] * 40},
        {"loss": [1.0, math.inf] * 20, "gradient_norm": [0.0, math.inf] * 20},
        {"loss": [-5.0 - t for t in range(40)], "gradient_norm": [1e-30] * 40},
        {"learning_rate": [0.1, 0.2, 0.4]},
    ],
)
def test_poor_histories_still_make_a_page(tmp_path, source) -> None:
    page = write_page(source, tmp_path)
    assert "not known" in texts(draw(Story.of(source), "")) and page.stat().st_size > 1000
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_many_layers_are_a_range() -> None:
    said = texts(draw(told(50, layers=60), ""))
    assert "60 layers, range" in said and "block_30/kernel" not in said


def test_long_names_of_layers_differ() -> None:
    blocks = [f"language_model/transformer_encoder_block_{i:02d}/attention/query_projection" for i in range(60)]
    assert "07" in short_names(blocks)[7]
    for layers in (blocks, ["a", "a/b", "b"], [f"{'x' * 40}{c}{'y' * 40}" for c in "pqr"], ["only/one"]):
        names = short_names(layers)
        assert len(set(names)) == len(layers) and max(map(len, names)) <= 24


def test_one_infinite_loss_hides_no_other() -> None:
    story = told(9000, lambda t: math.inf if t == 4321 else 1.0)
    assert np.all(story.series("loss") == 1.0) and np.isinf(story.series("loss_high")).sum() == 1
    assert "not finite" in texts(draw(story, ""))


def test_a_spike_does_not_lift_the_smoothed_loss() -> None:
    losses = [1e5 if 3 <= t < 8 else 1.0 for t in range(200)]
    smooth = smoothed(np.array(losses))
    assert smooth[60] < 2.0


def test_a_smoothed_loss_lies_on_a_steep_one() -> None:
    """Also at its ends, and where the last batch is the small one of an epoch."""
    t = np.arange(1500)
    assert np.allclose(smoothed(3.4 - t / 100)[[0, 50, -1]], (3.4 - t / 100)[[0, 50, -1]], atol=0.03)
    assert smoothed(np.where(t % 5 == 4, 0.0, 1.0))[-1] > 0.9


@pytest.mark.parametrize("updates", [25, 100, 150, 199, 200, 350])
def test_then_and_now_share_no_update(updates: int) -> None:
    story = Story(())
    for t in range(updates):
        story.add(Observation(t, gradient_norm=1.0 + t))
    then, now = story.then_and_now()
    n = min(updates // 2, 100)
    assert then[:n] == [1.0 + t for t in range(n)] and now[-n:] == [1.0 + t for t in range(updates - n, updates)]
    assert not set(then) & set(now)


def test_a_single_update_can_be_seen() -> None:
    figure = draw(told(1), "")
    dots = [line for axes in figure.axes for line in axes.get_lines() if line.get_marker() == "o"]
    assert len(dots) >= 5
    figure.canvas.draw()
    assert {t.get_text() for t in figure.axes[0].get_xticklabels()} == {"0", "1"}


def test_legends_hide_nothing() -> None:
    figure = draw(told(300, layers=60, name="a_name_that_is_longer_than_most"), "")
    figure.canvas.draw()
    boxes = [(a.get_window_extent(), a.get_legend().get_window_extent()) for a in figure.axes if a.get_legend()]
    assert len(boxes) >= 5 and not any(axes.overlaps(legend) for axes, legend in boxes)
    assert min(axes.width for axes, _ in boxes) > 0.2 * figure.bbox.width


def test_a_loss_that_was_never_finite_for_long_diverges() -> None:
    story = told(100, lambda t: 10.0**t if t < 4 else math.inf)
    assert "loss: diverging" in texts(draw(story, ""))


@pytest.mark.filterwarnings("error")
def test_weights_that_are_not_finite_have_no_change() -> None:
    subject, story = Subject(("a/kernel",), ((2, 2),)), Story(())
    bad = np.array([np.inf])
    story.take([Observation(0, gradient_norms=bad, parameter_norms=bad, update_norms=bad)], subject, np.zeros(1))
    assert np.isnan(story.by_layer("change")).all() and np.isnan(story.by_layer("silent")).all()
    draw(story, "")


def test_a_floor_far_away_is_not_drawn() -> None:
    """A line that falls steadily says nothing about where it ends."""
    story = Story.of({"loss": [2.0 - t / 200 for t in range(200)]})
    assert "goes to" not in texts(draw(story, ""))


def test_a_floor_below_0_has_no_place_on_a_log_axis() -> None:
    story = Story.of({"loss": [6.5 * math.exp(-0.09 * t) - 0.2 for t in range(37)]})
    figure = draw(story, "")
    assert figure.axes[0].get_yscale() == "log" and "goes to" not in texts(figure)


def test_panels_share_their_axis() -> None:
    reach = {axes.get_xlim() for axes in draw(told(120), "").axes if axes.get_xlabel() == "update"}
    assert reach == {(0.0, 119.0)}


def test_text_of_others_is_no_markup(tmp_path) -> None:
    story = told(30)
    bad = "<script>alert(1)</script>"
    story.alerts.append(Alert("loss_spike", "warning", bad, bad, 3, bad, 1.0, 2.0))
    page = write_page(story, tmp_path, title=bad, configuration={"name": bad, "rate": math.nan}, pictures=False)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not re.search(r'(src|href)="https?:', text.replace("http://www.w3.org", ""))


def test_of_a_file_with_layers(tmp_path) -> None:
    layers = {"a": {"gradient_norm": 1.0, "parameter_norm": 2.0, "update_norm": 0.02}, "b": {"gradient_norm": None}}
    rows = [{"update": t, "loss": 1.0 / (t + 1), "gradient_norm": 1.0, "layers": layers} for t in range(30)]
    alert = {
        "alert": {"id": "loss_spike", "level": "warning", "step": 7, "message": "m", "suggestion": "s", "layer": "a"}
    }
    lines = [json.dumps(row) for row in [*rows, alert]]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + '\n{"upd')
    story = Story.of(tmp_path / "log.jsonl")
    assert story.layers == ("a", "b") and story.alerts[0].id == "loss_spike"
    assert np.allclose(story.by_layer("change")[0], 0.01) and np.isnan(story.by_layer("change")[1]).all()


def test_bad_input(tmp_path) -> None:
    with pytest.raises(ck.ConfigError, match="nothing to show"):
        ck.write_report(Story(()), tmp_path)
    with pytest.raises(ck.ConfigError, match="it is empty"):
        ck.write_report({"loss": []}, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ck.ConfigError, match="directory: cannot write"):
        ck.TrainingReport(tmp_path / "file" / "below")
    with pytest.raises(ck.ConfigError, match="seconds"):
        ck.TrainingReport(tmp_path, seconds=-1)
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_fit_keeps_the_page(tmp_path) -> None:
    """With a bad batch, accumulation and validation; written while it runs, and at the end with pictures."""
    x, y = digits()
    x = x.copy()
    x[5] = np.nan
    written: list[bool] = []

    class Looks(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            written.append((tmp_path / "report.html").exists())

    model = classifier(ck.AdamW(1e-2, gradient_accumulation_steps=2, global_clipnorm=1.0))
    report = ck.TrainingReport(tmp_path, seconds=1e-6, print_fn=lambda text: None)
    model.fit(
        x, y, batch_size=16, epochs=3, validation_data=(x[64:128], y[64:128]), verbose=0, callbacks=[report, Looks()]
    )
    text = report.page.read_text(encoding="utf-8")
    assert written[-1] and "nonfinite" in text and '"gradient_accumulation_steps": 2' in text
    assert sorted(os.listdir(tmp_path)) == ["report.html", "report.png", "report.svg"]
    assert len(report.story.validation) == 3
    assert report.story.updates == 3 * 12
    assert np.isfinite(report.story.by_layer("gradient")).any() and np.isfinite(report.story.by_layer("silent")).any()


def small() -> tuple[keras.Model, np.ndarray, np.ndarray]:
    x, y = digits()
    return classifier(ck.Adam(1e-3)), x, y


def test_another_training_begins_a_page_of_its_own(tmp_path, monkeypatch) -> None:
    """The same one goes on, also in another optimizer that was loaded."""
    monkeypatch.setattr("capibara_keras.callbacks.training_report.write_page", lambda *arguments, **options: None)
    report = ck.TrainingReport(tmp_path, print_fn=lambda text: None)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])

    def page(y: float) -> tuple[int, int]:
        model.fit(np.ones((20, 1)), np.full((20, 1), y), batch_size=4, verbose=0, callbacks=[report])
        return report.story.updates, len(report.story.alerts)

    for start, y, expected in ((0, 1.0, (5, 0)), (5, np.nan, (10, 1)), (0, 1.0, (5, 0))):
        optimizer = ck.SGD(1e-3)
        model.compile(optimizer, "mse", run_eagerly=True)
        optimizer.build(model.trainable_variables)
        optimizer.iterations.assign(start)
        assert page(y) == expected
    assert len(report.alerts) == 1


def test_a_full_disk_costs_pages_and_not_the_training(tmp_path, monkeypatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    model, x, y = small()
    report = ck.TrainingReport(tmp_path, seconds=1e-6, print_fn=lambda text: None)
    monkeypatch.setattr("os.replace", full)
    with pytest.warns(UserWarning, match="the run goes on.*No space left"):
        model.fit(x, y, batch_size=16, verbose=0, callbacks=[report])
    assert report.story.updates == -(-len(x) // 16) and os.listdir(tmp_path) == []


def test_a_training_that_ends_in_an_error_has_its_page(tmp_path) -> None:
    """As Python ends, which is tested by calling what it calls."""

    class Stops(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 11:
                raise KeyboardInterrupt

    model, x, y = small()
    report = ck.TrainingReport(tmp_path, print_fn=lambda text: None)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=16, verbose=0, callbacks=[report, Stops()])
    assert not report.page.exists()
    report._interrupted()
    assert sorted(os.listdir(tmp_path)) == ["report.html", "report.png", "report.svg"]


def test_a_page_names_what_ended_the_training(tmp_path) -> None:
    _, x, y = small()
    x = x.copy()
    x[40] = np.nan
    model = classifier(ck.Adam(1e-3, nonfinite="raise"))
    report = ck.TrainingReport(tmp_path, print_fn=lambda text: None)
    with pytest.raises(FloatingPointError):
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0, callbacks=[report])
    assert "nonfinite" in report.page.read_text(encoding="utf-8")


@pytest.mark.parametrize(("low", "high"), [(0.45, 0.7), (0.05, 2.0), (1e-4, 1e2)])
def test_ticks_of_the_histogram(low: float, high: float) -> None:
    """Some, and no two alike, over a tenth of a decade and over six."""
    norms = np.geomspace(low, high, 100)
    figure = Figure()
    axes = figure.subplots()
    histogram_panel(axes, SimpleNamespace(then_and_now=lambda: (norms, norms)))
    figure.canvas.draw()
    limits = axes.get_xlim()
    shown = [label.get_text() for label in axes.get_xticklabels() if limits[0] <= label.get_position()[0] <= limits[1]]
    assert len(shown) >= 3 and len(set(shown)) == len(shown)


def test_a_run_that_never_was_finite() -> None:
    """All its updates were skipped, and so have the index of the first."""
    story, subject = Story(("a",)), Subject(("a/kernel",), ((2, 2),))
    norms = {"parameter_norms": np.ones(1), "update_norms": np.zeros(1), "gradient_norms": np.full(1, np.inf)}
    for _ in range(30):
        values = {"loss": math.inf, "gradient_norm": math.inf, "learning_rate": 0.1, "skipped": True}
        story.take([Observation(0, **values, **norms)], subject)
    figure = draw(story, "")
    assert "no finite one was recorded" in texts(figure) and "no update changed anything" in texts(figure)
    dots = {axes.get_title("left") for axes in figure.axes for line in axes.get_lines() if line.get_marker() == "o"}
    assert dots >= {"Learning rate", "Norm of the weights"}
