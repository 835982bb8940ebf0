"""Does gradient descent find what the normal equations give? One dense layer and the mean squared
error.

A line, y = 2x + 1 + noise, is fitted by plain gradient descent; the diabetes data, whose ten
features are so correlated that plain descent would need thousands of steps, by descent with
Nesterov's momentum. Every step sees all examples. The same coefficients follow in closed form from
least squares, w = argmin ‖Xw − y‖², which NumPy solves in float64.

    python -m experiments.linear_regression          # a few seconds

Data: 1,000 points drawn from the line; 442 diabetes patients (Efron et al., 2004), which come with
scikit-learn.
Expect: all coefficients within 1e-3 of the closed form, relative to the largest; R² of 0.33 on the
diabetes test set.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import optax

import jaxdl as dl
from experiments import pictures
from experiments.reporting import Goal, run, show_table, write_result
from jaxdl import data, losses, metrics

GOALS = (Goal("line_difference", 1e-3, "at most"), Goal("diabetes_difference", 1e-3, "at most"))
FEATURES = ("age", "sex", "body mass", "blood pressure", "s1", "s2", "s3", "s4", "s5", "s6")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Args:
        seed: of the points, their noise, and the first weights.
        epochs: steps of gradient descent, each over all examples.
        points: on the line.
        noise: its standard deviation.
        out: where the results go.
        quick: at most 200 steps.
    """

    seed: int = 0
    epochs: int = 2000
    points: int = 1000
    noise: float = 0.5
    out: Path = Path("runs/linear_regression")
    quick: bool = False


def line(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Points of y = 2x + 1 + noise, with x from −2 to 2: [points, 1] and [points]."""
    generator = np.random.default_rng(config.seed)
    x = generator.uniform(-2, 2, (config.points, 1))
    y = 2 * x[:, 0] + 1 + config.noise * generator.normal(size=config.points)
    return x.astype(np.float32), y.astype(np.float32)


def descend(
    train: tuple[Any, Any], optimizer: optax.GradientTransformation, config: Config
) -> dl.Run:
    """Full-batch gradient descent of the mean squared error."""
    return dl.fit(
        dl.Dense(1),
        train,
        loss=losses.mean_squared_error,
        optimizer=optimizer,
        epochs=min(config.epochs, 200) if config.quick else config.epochs,
        batch_size=len(train[1]),
        seed=config.seed,
        progress=False,
    )


def closed_form(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The least-squares coefficients, the intercept last."""
    design = np.column_stack([x, np.ones(len(x))]).astype(np.float64)
    return np.linalg.lstsq(design, y.astype(np.float64))[0]


def coefficients(trained: dl.Run) -> np.ndarray:
    """The coefficients of the dense layer, the intercept last."""
    return np.concatenate([trained.params["kernel"][:, 0], trained.params["bias"]]).astype(
        np.float64
    )


def difference(found: np.ndarray, exact: np.ndarray) -> float:
    """The largest difference, relative to the largest coefficient."""
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def main(config: Config) -> dict[str, Any]:
    points = line(config)
    straight = descend(points, optax.sgd(0.1), config)
    train, test = data.diabetes()
    patients = descend(train, optax.sgd(0.05, momentum=0.95, nesterov=True), config)

    found = {"line": coefficients(straight), "diabetes": coefficients(patients)}
    exact = {"line": closed_form(*points), "diabetes": closed_form(*train)}
    tested = dl.evaluate(
        dl.Dense(1), patients.params, patients.state, test, metrics={"r2": metrics.R2()}
    )
    figures = {
        "line_difference": difference(found["line"], exact["line"]),
        "diabetes_difference": difference(found["diabetes"], exact["diabetes"]),
        "diabetes_test_r2": tested["r2"],
        "coefficients": found,
        "closed_form": exact,
    }
    names = [
        "line: slope",
        "line: intercept",
        *(f"diabetes: {name}" for name in (*FEATURES, "intercept")),
    ]
    pairs = zip(
        names, np.concatenate([*found.values()]), np.concatenate([*exact.values()]), strict=True
    )
    show_table(
        "Coefficients by gradient descent and in closed form",
        ["coefficient", "gradient descent", "closed form", "difference"],
        [
            (name, f"{ours:.5f}", f"{theirs:.5f}", f"{ours - theirs:.0e}")
            for name, ours, theirs in pairs
        ],
        f"R² on the diabetes test set: {tested['r2']:.3f}",
    )
    draw(points, straight, patients, config)
    write_result("linear_regression", config, figures, GOALS)
    return figures


def draw(
    points: tuple[np.ndarray, np.ndarray], straight: dl.Run, patients: dl.Run, config: Config
) -> None:
    figure, (left, right) = pictures.panels(2)
    left.scatter(points[0], points[1], s=6, alpha=0.4, label="data")
    ends = np.array([[-2.0], [2.0]], np.float32)
    predicted = dl.predict(dl.Dense(1), straight.params, straight.state, ends)
    slope, intercept = coefficients(straight)
    left.plot(ends, predicted, color="C3", label=f"y = {slope:.2f} x + {intercept:.2f}")
    left.set(xlabel="x", ylabel="y")
    left.legend()
    for name, each in (("line", straight), ("diabetes, with momentum", patients)):
        loss = np.array(each.history["loss"])
        right.plot(range(1, len(loss) + 1), loss / loss[0], label=name)
    right.set(
        xlabel="step of gradient descent",
        ylabel="loss, relative to the first",
        xscale="log",
        yscale="log",
    )
    right.legend()
    pictures.save(figure, config.out, "line_and_losses")


if __name__ == "__main__":
    run(main, Config, __doc__)
