"""Reports: known costs, agreement of the execution modes, refusal, and JSON that prints the same table."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics
from jaxdl.speed.compare import difference
from jaxdl.speed.device import DeviceSpeed

QUICK = {"rounds": 3, "seconds": 0.002, "widest_spread": 1e9}


def examples(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    return x, (x.sum(1) > 0).astype(np.int32)


@pytest.fixture(scope="module")
def report(machine: DeviceSpeed) -> dl.SpeedReport:
    return dl.compare(
        dl.Sequential(dl.Dense(4), jax.nn.relu, dl.Dropout(0.1), dl.Dense(2)),
        examples(),
        loss=losses.softmax_cross_entropy,
        optimizer=optax.adam(1e-2),
        metrics={"accuracy": metrics.accuracy},
        batch_size=16,
        steps=7,
        device=machine,
        name="a small network",
        **QUICK,
    )


@pytest.mark.slow
def test_the_execution_modes_agree_and_each_is_measured(report: dl.SpeedReport) -> None:
    assert [each.name for each in report.executions] == ["eager", "step", "epoch"]
    assert report.difference is not None
    assert report.difference < 1e-6
    assert report["eager"].difference == 0
    for each in report.executions:
        assert each.seconds is not None
        assert each.seconds == np.median(each.rounds)
        assert each.examples_a_second == pytest.approx(16 / each.seconds)
        assert each.share_of_matrix_product == pytest.approx(each.flops / each.seconds / 1e12)
        assert each.share_of_bandwidth == pytest.approx(each.bytes / each.seconds / 1e11)
        assert len(each.rounds) == 3
        assert each.first_seconds >= each.compile_seconds > 0
        assert each.peak_bytes > 0
    assert report["eager"].programs > report["step"].programs >= 1
    assert report["epoch"].programs == 1
    assert report["epoch"].program_bytes > 40 * 3 * 4
    assert report["eager"].seconds > report["epoch"].seconds


def test_operations_are_those_of_one_step(report: dl.SpeedReport) -> None:
    products = (
        2 * 16 * (2 * 3 * 4 + 3 * 4 * 2)
    )  # forward twice over, weights' and inputs' gradients; none for the first inputs
    assert products < report["step"].flops < 60 * products
    assert report.exact


def test_json_loads_again_and_prints_the_same_table(
    report: dl.SpeedReport, tmp_path: Path
) -> None:
    report.to_json(tmp_path / "folder" / "report.json")
    loaded = dl.SpeedReport.from_json(tmp_path / "folder" / "report.json")
    assert loaded == report
    assert str(loaded) == str(report)
    assert "a small network: a step of 16 examples" in str(report)
    assert max(map(len, str(report).splitlines())) <= 100


def test_a_report_is_the_same_text_in_a_notebook(
    report: dl.SpeedReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = str(report)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert str(report) == plain


def test_json_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"other\.json: expected a 'jaxdl speed report, version 2'"
    ):
        dl.SpeedReport.from_json(tmp_path / "other.json")


@pytest.mark.slow
def test_a_picture_is_drawn(report: dl.SpeedReport, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = report.plot(tmp_path / "report.png")
    bars, roofline = figure.axes
    assert [bar.get_height() for bar in bars.patches] == pytest.approx(
        [1e3 * each.seconds for each in report.executions]
    )
    assert bars.get_ylabel() == "time a step (ms)"
    assert (roofline.get_xscale(), roofline.get_yscale()) == ("log", "log")
    assert (tmp_path / "report.png").stat().st_size > 10_000


def test_a_matrix_product_has_its_known_operations(machine: DeviceSpeed) -> None:
    left, right = np.ones((64, 32), np.float32), np.ones((32, 48), np.float32)
    report = dl.compare_function(jnp.dot, left, right, vmap_over=4, device=machine, **QUICK)
    assert [each.name for each in report.executions] == ["eager", "jit", "vmap"]
    assert {each.flops for each in report.executions} == {2 * 64 * 32 * 48}
    assert report.difference < 1e-5
    assert report["jit"].programs == 1
    assert report["jit"].program_bytes == 4 * (64 * 32 + 32 * 48 + 64 * 48)
    assert report["vmap"].program_bytes == 4 * report["jit"].program_bytes
    assert (report.name, report.unit, report.examples) == ("dot", "call", None)


def test_vmap_copies_the_arguments_that_are_mapped(machine: DeviceSpeed) -> None:
    shapes = []

    def product(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        shapes.append((params["w"].shape, x.shape))
        return x @ params["w"]

    args = {"w": np.ones((8, 8), np.float32)}, np.ones((2, 8), np.float32)
    report = dl.compare_function(
        product, *args, vmap_over=5, in_axes=(None, 1), device=machine, **QUICK
    )
    assert set(shapes) == {((8, 8), (2, 8))}
    assert 4 * (64 + 5 * 16 + 5 * 16) <= report["vmap"].program_bytes < 4 * 5 * (64 + 16 + 16)
    alone = dl.compare_function(product, *args, vmap_over=None, device=machine, **QUICK)
    assert [each.name for each in alone.executions] == ["eager", "jit"]


def test_a_time_that_means_nothing_is_refused(machine: DeviceSpeed, tmp_path: Path) -> None:
    settings = QUICK | {"widest_spread": 1e-12}
    report = dl.compare_function(
        jnp.sin, np.ones(64, np.float32), vmap_over=None, device=machine, **settings
    )
    for each in report.executions:
        assert (
            each.seconds
            is each.flops_a_second
            is each.share_of_matrix_product
            is each.share_of_bandwidth
            is None
        )
        assert len(each.rounds) == 3
    assert len(report.refused) == 2
    assert (
        "eager: no time is reported, since the middle half of its 3 rounds spreads over"
        in str(report)
    )
    assert "time a call" not in str(report)
    assert '"seconds": null' in report.to_json(tmp_path / "refused.json")
    assert str(dl.SpeedReport.from_json(tmp_path / "refused.json")) == str(report)
    assert "eager —, jit —" in repr(report)
    pytest.importorskip("matplotlib")
    assert report.plot().axes[0].patches[:] == []


def test_one_way_alone_is_refused_with_a_dash(report: dl.SpeedReport) -> None:
    unknown = dataclasses.replace(
        report.executions[0], seconds=None, examples_a_second=None, flops_a_second=None
    )
    row = next(
        line
        for line in str(
            dataclasses.replace(report, executions=(unknown, *report.executions[1:]))
        ).splitlines()
        if "time a" in line
    )
    assert row.split()[3] == "—"
    assert row.count("—") == 1


def test_the_largest_difference_is_over_all_leaves() -> None:
    a = {"x": np.zeros(3), "n": np.arange(2), "key": jax.random.key(0)}
    assert (
        difference(
            a, {"x": np.array([0, -0.5, 0.25]), "n": np.arange(2), "key": jax.random.key(0)}
        )
        == 0.5
    )
    assert difference({}, {}) == 0


@pytest.mark.slow
def test_a_stream_is_measured_by_its_first_batch(machine: DeviceSpeed) -> None:
    x, y = examples(12)
    report = dl.compare(
        dl.Dense(2),
        [(x[:6], y[:6]), (x[6:], y[6:])],
        loss=losses.softmax_cross_entropy,
        optimizer=optax.sgd(0.1),
        executions=("step", "epoch"),
        device=machine,
        **QUICK,
    )
    assert report.examples == 6
    assert report.difference < 1e-6


@pytest.mark.slow
def test_an_optimizer_by_name_and_a_precision_are_taken_as_by_fit(machine: DeviceSpeed) -> None:
    report = dl.compare(
        dl.Dense(2),
        examples(),
        loss=losses.softmax_cross_entropy,
        optimizer="sgd",
        learning_rate=0.1,
        precision="bfloat16",
        executions=("step", "epoch"),
        device=dataclasses.replace(machine, matrix_product={"float32": 1e12, "bfloat16": 2e12}),
        **QUICK,
    )
    assert report.dtype == "bfloat16"
    assert report["step"].share_of_matrix_product == pytest.approx(
        report["step"].flops_a_second / 2e12
    )


@pytest.mark.slow
@pytest.mark.once
def test_a_precision_is_reported_with_what_it_costs(
    machine: DeviceSpeed, tmp_path: Path
) -> None:
    options = {
        "loss": losses.softmax_cross_entropy,
        "optimizer": optax.sgd(0.1),
        "metrics": {"accuracy": metrics.accuracy, "confusion": metrics.ConfusionMatrix(2)},
        "batch_size": 16,
    }
    report = dl.compare(
        dl.Dense(2),
        examples(),
        precision="bfloat16",
        executions=("epoch",),
        steps=3,
        device=machine,
        **options,
        **QUICK,
    )
    assert report.precision is not None
    for precision, reported in (
        ("bfloat16", report.precision.metrics),
        (None, report.precision.float32),
    ):
        run = dl.fit(dl.Dense(2), examples(), precision=precision, progress=False, **options)
        model = {
            "loss": options["loss"],
            "metrics": {"accuracy": metrics.accuracy},
            "precision": precision,
        }
        assert reported == pytest.approx(
            dl.evaluate(dl.Dense(2), run.params, run.state, examples(), **model), rel=1e-5
        )
    assert report.precision.metrics["loss"] != report.precision.float32["loss"]
    assert 0 < report.precision.difference < 0.1
    assert "bfloat16 gives loss 0." in str(report)
    report.to_json(tmp_path / "report.json")
    assert str(dl.SpeedReport.from_json(tmp_path / "report.json")) == str(report)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"executions": ("fast",)}, "executions: expected some of 'eager', 'step', 'epoch'"),
        ({"rounds": 1}, "rounds: expected an integer of at least 3"),
        ({"steps": 0}, "steps"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_settings_are_refused_before_anything_runs(
    settings: dict[str, object], sentence: str, unchecked: None
) -> None:
    with pytest.raises(ValueError, match=sentence):
        dl.compare(
            dl.Dense(2),
            examples(),
            loss=losses.softmax_cross_entropy,
            optimizer=optax.sgd(0.1),
            **QUICK | settings,
        )


def test_training_that_diverges_is_not_timed(machine: DeviceSpeed) -> None:
    x = np.full((8, 1), 1e30, np.float32)
    with pytest.raises(
        FloatingPointError, match="compare: the loss or a gradient was not finite at step"
    ):
        dl.compare(
            dl.Dense(1),
            (x, x),
            loss=losses.mean_squared_error,
            optimizer=optax.sgd(1.0),
            executions=("step",),
            device=machine,
            **QUICK,
        )


def test_arguments_that_are_no_arrays_are_refused() -> None:
    with pytest.raises(
        TypeError, match="compare_function: argument 1 holds str; expected arrays"
    ):
        dl.compare_function(jnp.dot, np.ones(3, np.float32), "x")


@dataclasses.dataclass(frozen=True)
class Line(dl.Objective):
    """The squared loss of a layer, as an objective."""

    model: dl.Layer

    def loss(self, params, state, batch, mode):
        outputs, state = self.model.apply(params, state, batch.inputs, mode)
        errors = (outputs - batch.targets) ** 2
        return errors[:, 0], state, {"error": jnp.abs(outputs - batch.targets)[:, 0]}


def line() -> tuple[np.ndarray, np.ndarray]:
    x, labels = examples()
    return x, labels[:, None].astype(np.float32)


def test_an_objective_and_a_training_step_are_measured(machine: DeviceSpeed) -> None:
    settings: dict = {
        "batch_size": 16,
        "steps": 3,
        "device": machine,
        "executions": ("step", "epoch"),
        **QUICK,
    }
    objective = Line(dl.Dense(1))
    by_objective = dl.compare(objective, line(), optimizer=optax.sgd(0.1), **settings)
    step, _ = dl.make_step(objective, optimizer=optax.sgd(0.1))
    for report in (by_objective, dl.compare(step, line(), **settings)):
        assert report.difference is not None
        assert report.difference < 1e-6
        assert report["step"].programs >= report["epoch"].programs == 1
        assert all(each.compile_seconds > 0 for each in report.executions)
    built_in = dl.compare(
        dl.Dense(1),
        line(),
        loss=losses.mean_squared_error,
        optimizer=optax.sgd(0.1),
        **settings,
    )
    assert by_objective["step"].flops == pytest.approx(built_in["step"].flops, rel=0.2)


@pytest.mark.slow
def test_an_adversarial_step_is_measured(machine: DeviceSpeed) -> None:
    generator = dl.Sequential(dl.Dense(8), jax.nn.relu, dl.Dense(3))
    step = dl.Adversarial(generator, dl.Dense(1), 2, optax.adam(1e-3), optax.adam(1e-3))
    report = dl.compare(step, line()[0], batch_size=16, steps=2, device=machine, **QUICK)
    assert report.difference is not None
    assert report.difference < 1e-5
    assert report["eager"].programs > report["epoch"].programs == 1


def test_what_is_to_be_measured_needs_its_own_parts() -> None:
    objective = Line(dl.Dense(1))
    step, _ = dl.make_step(objective, optimizer="sgd")
    loss = losses.mean_squared_error
    for model, given, match in (
        (dl.Dense(1), {"optimizer": "sgd"}, "compare: give the loss of the model"),
        (dl.Dense(1), {"loss": loss}, "compare: give the optimizer of Dense"),
        (objective, {}, "compare: give the optimizer of Line"),
        (
            objective,
            {"optimizer": "sgd", "loss": loss},
            "Line is an Objective, which has its own",
        ),
        (step, {"optimizer": "sgd"}, "Minimize is a training step, .* leave optimizer out"),
        (
            step,
            {"learning_rate": 0.1},
            "Minimize is a training step, .* leave learning_rate out",
        ),
        (objective, {"optimizer": "sgd", "metrics": {}}, "there is no argument 'metrics'"),
    ):
        with pytest.raises(TypeError, match=match):
            dl.compare(model, line(), **given)
