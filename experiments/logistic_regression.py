"""Does gradient descent find scikit-learn's logistic regression? One dense layer, a sigmoid, and an
L2 penalty.

Both minimise the mean cross-entropy plus ‖w‖² / (2 C n), C being scikit-learn's inverse strength of
the penalty and n the number of examples; the bias is not penalised. Here the penalty is optax's
weight decay, and every step sees all examples. scikit-learn finds the same minimum by Newton's
method, in float64.

    python -m experiments.logistic_regression        # a few seconds

Data: 1,000 points in the unit square, of class 1 where x₁ + x₂ > 1; 569 breast tumours (Wolberg et
al., 1995), which come with scikit-learn.
Expect: coefficients within 1e-3 of scikit-learn's, relative to the largest; test accuracy 0.98 on
breast cancer (at least 0.96).
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import optax
from sklearn.linear_model import LogisticRegression

import jaxdl as dl
from experiments import pictures
from experiments.reporting import Goal, run, show_table, write_result
from jaxdl import data, losses, metrics

GOALS = (
    Goal("breast_cancer_test_accuracy", 0.96),
    Goal("square_difference", 1e-3, "at most"),
    Goal("breast_cancer_difference", 1e-3, "at most"),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Args:
        seed: of the points and the first weights.
        epochs: steps of gradient descent, each over all examples.
        points: in the unit square, and as many again for testing.
        inverse_penalty: C, as scikit-learn has it.
        learning_rate: of gradient descent.
        momentum: Nesterov's.
        out: where the results go.
        quick: at most 200 steps.
    """

    seed: int = 0
    epochs: int = 2000
    points: int = 1000
    inverse_penalty: float = 1.0
    learning_rate: float = 0.3
    momentum: float = 0.97
    out: Path = Path("runs/logistic_regression")
    quick: bool = False


def square(count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points in the unit square, and whether x₁ + x₂ > 1: [count, 2] and [count]."""
    x = generator.uniform(size=(count, 2)).astype(np.float32)
    return x, (x.sum(1) > 1).astype(np.int32)


def subject(config: Config) -> dict[str, Any]:
    """The arguments of `fit` that `python -m jaxdl compare logistic_regression` times, too."""
    return recipe(square(config.points, np.random.default_rng(config.seed)), config)


def recipe(train: tuple[Any, Any], config: Config) -> dict[str, Any]:
    """Full-batch gradient descent with Nesterov's momentum and weight decay on the kernel, as the
    arguments of `fit`.
    """
    penalty = 1 / (config.inverse_penalty * len(train[1]))
    return {
        "model": dl.Dense(1),
        "data": train,
        "loss": losses.binary_cross_entropy,
        "optimizer": optax.chain(
            optax.add_decayed_weights(
                penalty, mask=lambda params: dl.tree.map_named(is_kernel, params)
            ),
            optax.sgd(config.learning_rate, config.momentum, nesterov=True),
        ),
        "batch_size": len(train[1]),
        "seed": config.seed,
    }


def descend(train: tuple[Any, Any], config: Config) -> dl.Run:
    epochs = min(config.epochs, 200) if config.quick else config.epochs
    return dl.fit(**recipe(train, config), epochs=epochs, progress=False)


def is_kernel(name: str, leaf: Any) -> bool:
    del leaf
    return name == "kernel"


def main(config: Config) -> dict[str, Any]:
    generator = np.random.default_rng(config.seed)
    problems = {
        "square": (square(config.points, generator), square(config.points, generator)),
        "breast_cancer": data.breast_cancer(),
    }
    figures, rows, runs = {}, [], {}
    for name, (train, test) in problems.items():
        trained = runs[name] = descend(train, config)
        oracle = LogisticRegression(
            C=config.inverse_penalty, solver="newton-cholesky", tol=1e-8
        )
        oracle.fit(train[0].astype(np.float64), train[1])
        ours = np.concatenate([trained.params["kernel"][:, 0], trained.params["bias"]]).astype(
            np.float64
        )
        theirs = np.concatenate([oracle.coef_[0], oracle.intercept_])
        tested = dl.evaluate(
            dl.Dense(1),
            trained.params,
            trained.state,
            test,
            metrics={"accuracy": metrics.accuracy},
        )
        measured = {
            "test_accuracy": tested["accuracy"],
            "test_accuracy_scikit_learn": oracle.score(*test),
            "difference": float(np.abs(ours - theirs).max() / np.abs(theirs).max()),
        }
        figures |= {f"{name}_{figure}": value for figure, value in measured.items()}
        figures |= {f"{name}_coefficients": ours, f"{name}_coefficients_scikit_learn": theirs}
        largest = np.argmax(np.abs(theirs))
        rows.append(
            (
                name.replace("_", " "),
                *measured.values(),
                float(ours[largest]),
                float(theirs[largest]),
            )
        )

    show_table(
        "Logistic regression by gradient descent, and scikit-learn's",
        ["data", "accuracy", "scikit-learn", "difference", "largest coef.", "scikit-learn"],
        rows,
        "Accuracy is on the test set; the difference is the largest between coefficients, relative "
        "to the largest of them.",
    )
    draw(problems["square"][0], runs, config)
    write_result("logistic_regression", config, figures, GOALS)
    return figures


def draw(
    points: tuple[np.ndarray, np.ndarray], runs: dict[str, dl.Run], config: Config
) -> None:
    figure, (left, right) = pictures.panels(2)
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 101), np.linspace(0, 1, 101)), -1).astype(
        np.float32
    )
    logits = dl.predict(dl.Dense(1), runs["square"].params, {}, grid.reshape(-1, 2)).reshape(
        101, 101
    )
    probability = 1 / (1 + np.exp(-np.asarray(logits)))
    shades = left.contourf(
        grid[..., 0],
        grid[..., 1],
        probability,
        levels=np.linspace(0, 1, 11),
        cmap="RdBu",
        alpha=0.7,
    )
    left.contour(grid[..., 0], grid[..., 1], probability, levels=[0.5], colors="black")
    for label, colour in ((0, "darkred"), (1, "darkblue")):
        x = points[0][points[1] == label]
        left.scatter(x[:, 0], x[:, 1], s=5, color=colour, label=f"class {label}")
    left.plot([0, 1], [1, 0], "--", color="black", linewidth=1, label="x₁ + x₂ = 1")
    left.set(xlabel="x₁", ylabel="x₂", aspect="equal")
    left.legend(fontsize="small", loc="lower left")
    figure.colorbar(shades, ax=left, label="probability of class 1")
    for name, each in runs.items():
        right.plot(
            range(1, len(each.history["loss"]) + 1),
            each.history["loss"],
            label=name.replace("_", " "),
        )
    right.set(
        xlabel="step of gradient descent",
        ylabel="cross-entropy (without the penalty), nats",
        xscale="log",
    )
    right.legend()
    pictures.save(figure, config.out, "boundary_and_losses")


if __name__ == "__main__":
    run(main, Config, __doc__)
