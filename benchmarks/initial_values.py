"""What initial values cost or gain: small tasks on real data from jaxdl's start and from others',
and by Keras itself.

    python -m benchmarks.initial_values --seeds 5 --trials "air passengers, LSTM(32)"

The tasks are those of `benchmarks.real_tasks`, the starts those of `benchmarks.starts`. A run's
figure is that of the test, once, after training; a start's are the mean, the least and the greatest
over the seeds. Prints tables, and writes `initial_values.json`; with `--trials` the other trials'
figures are kept.
"""

import argparse
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import jaxdl as dl
from benchmarks import machine, starts
from benchmarks.real_tasks import (
    Task,
    airline_passengers,
    breast_cancer,
    diabetes,
    digits,
    electricity_transformer,
    film_ratings,
    mnist,
    mnist_itself,
)
from jaxdl import losses
from jaxdl.ops.activations import relu

Starts = dict[str, starts.Start | None]
"""By name; None is the model's own."""
OF_STATES: Starts = {
    "jaxdl": None,
    "as Keras": starts.keras,
    "as Flax": starts.flax,
    "as PyTorch": starts.torch,
}
OF_KERNELS: Starts = {
    "jaxdl": None,
    "as Keras": starts.keras,
    "as PyTorch": starts.torch,
    "he_normal": starts.he,
}


class Trial(NamedTuple):
    """A task, the model that is trained on it, from which starts, and a function that builds
    Keras's.
    """

    task: Callable[[], Task]
    model: dl.Layer
    starts: Starts
    keras: Callable[[], Any] | None = None


@dataclasses.dataclass(frozen=True)
class Factors(dl.Composite):
    """A rating as u · v + b + c, with a vector and a bias for each user and film: [batch, 2] to
    [batch, 1].

    Source: Koren et al., *Matrix factorization techniques for recommender systems* (2009).
    """

    users: int = 944
    films: int = 1683
    width: int = 16

    def wire(self, wiring: Any, x: Any) -> Any:
        user = wiring.math(lambda pairs: pairs[:, 0], x)
        film = wiring.math(lambda pairs: pairs[:, 1], x)
        users = wiring.part("users", dl.Embedding(self.users, self.width), user)
        films = wiring.part("films", dl.Embedding(self.films, self.width), film)
        user_bias = wiring.part("user_bias", dl.Embedding(self.users, 1), user)
        film_bias = wiring.part("film_bias", dl.Embedding(self.films, 1), film)
        return wiring.math(_rating, users, films, user_bias, film_bias)


def _rating(user: Any, film: Any, user_bias: Any, film_bias: Any) -> Any:
    return (user * film).sum(1, keepdims=True) + user_bias + film_bias


def trials() -> dict[str, Trial]:
    """All trials by name."""
    named = {}
    for cell in ("LSTM", "GRU", "SimpleRNN"):
        model = dl.Sequential(getattr(dl, cell)(32, sequence=False), dl.Dense(1))
        build = functools.partial(reader, cell, 12, 1, 32, 1)
        named[f"air passengers, {cell}(32)"] = Trial(
            airline_passengers, model, OF_STATES, build
        )
    for cell in ("LSTM", "GRU"):
        model = dl.Sequential(getattr(dl, cell)(64, sequence=False), dl.Dense(24 * 7))
        build = functools.partial(reader, cell, 96, 7, 64, 24 * 7)
        named[f"ETTh1, 96 hours to 24, {cell}(64)"] = Trial(
            electricity_transformer, model, OF_STATES, build
        )
    named["MovieLens-100k, factors of 16, biases"] = Trial(
        film_ratings, Factors(), OF_STATES, factors
    )
    return named | {
        name: Trial(task, model, OF_KERNELS) for name, (task, model) in feedforward().items()
    }


def feedforward() -> dict[str, tuple[Callable[[], Task], dl.Layer]]:
    """Tasks and models of layers that multiply with a kernel."""
    convolutions = [
        dl.Conv(16, 3),
        relu,
        dl.MaxPool(2),
        dl.Conv(32, 3),
        relu,
        dl.MaxPool(2),
        dl.Flatten(),
    ]
    narrowed = [dl.Conv(8, 3, 2), relu, dl.Conv(16, 3, 2), relu, dl.Flatten(), dl.Dense(16)]
    widened = [
        dl.Dense(7 * 7 * 16),
        relu,
        dl.Reshape((7, 7, 16)),
        dl.ConvTranspose(8, 4, 2),
        relu,
        dl.ConvTranspose(1, 4, 2),
    ]
    patches = [dl.Conv(32, 2, 2), dl.Reshape((-1, 32)), dl.SinusoidalPositions()]
    read = [
        *patches,
        *[dl.TransformerBlock(4)] * 2,
        dl.LayerNorm(),
        dl.GlobalAvgPool(),
        dl.Dense(10),
    ]
    return {
        "digits, Dense 64, 64": (
            digits,
            dl.Sequential(dl.Flatten(), *dl.models.mlp(64, 64, 10)),
        ),
        "breast cancer, Dense 32, 32": (breast_cancer, dl.models.mlp(32, 32, 2)),
        "diabetes, Dense 32, 32": (diabetes, dl.models.mlp(32, 32, 1)),
        "digits, two transformer blocks": (digits, dl.Sequential(*read)),
        "MNIST (5,000), Conv 16, 32": (
            mnist,
            dl.Sequential(*convolutions, dl.Dense(64), relu, dl.Dense(10)),
        ),
        "MNIST (5,000), Conv 8, 16 and back": (
            mnist_itself,
            dl.Sequential(*narrowed, *widened, jax.nn.sigmoid),
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.initial_values")
    parser.add_argument(
        "--seeds", type=int, default=5, help="runs from each start: %(default)s"
    )
    parser.add_argument("--trials", help="which, with ; between; else all")
    parser.add_argument(
        "--out", type=Path, default=machine.results(), help="folder for the file: %(default)s"
    )
    given = parser.parse_args()
    path = given.out / "initial_values.json"
    result = json.loads(path.read_text()) if path.exists() else {"trials": {}}
    chosen = trials()
    names = given.trials.split(";") if given.trials else list(chosen)
    for name in names:
        try:
            result["trials"][name] = measured(chosen[name], given.seeds)
        except FileNotFoundError as missing:
            sys.exit(str(missing))
        result["trials"] = {
            each: result["trials"][each] for each in chosen if each in result["trials"]
        }
        result["machine"] = machine.description()
        given.out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
    print(markdown(result))


def measured(trial: Trial, seeds: int) -> dict[str, Any]:
    """The errors of runs from each start, a number a seed."""
    task = trial.task()
    errors = {
        name: [by_jaxdl(trial, task, start, seed) for seed in range(seeds)]
        for name, start in trial.starts.items()
    }
    if trial.keras and machine.installed_version("keras"):
        errors["Keras itself"] = [by_keras(trial.keras, task, seed) for seed in range(seeds)]
    return {
        "figure": task.figure,
        "naive": task.error(task.naive),
        "starts": {name: summary(values) for name, values in errors.items()},
    }


def summary(values: list[float]) -> dict[str, Any]:
    return {"mean": mean(values), "min": min(values), "max": max(values), "seeds": values}


def by_jaxdl(trial: Trial, task: Task, start: starts.Start | None, seed: int) -> float:
    """The error of one run; without a start, from the model's own."""
    initial = None
    if start is not None:
        params, state = trial.model.init(jax.random.key(seed), task.train[0][:1])
        initial = starts.redrawn(params, start, seed), state
    run = dl.fit(
        trial.model,
        task.train,
        loss=losses.softmax_cross_entropy
        if task.figure == "cross-entropy"
        else losses.mean_squared_error,
        optimizer=optax.adam,
        learning_rate=task.learning_rate,
        batch_size=task.batch_size,
        epochs=task.epochs,
        validation=task.validation,
        early_stopping=dl.EarlyStopping(task.patience) if task.patience else None,
        initial=initial,
        seed=seed,
        progress=False,
    )
    return task.error(np.asarray(dl.predict(trial.model, run.params, run.state, task.test[0])))


def by_keras(build: Callable[[], Any], task: Task, seed: int) -> float:
    """The error of one run of Keras's `fit`."""
    import keras

    keras.utils.set_random_seed(seed)
    model = build()
    model.compile(optimizer=keras.optimizers.Adam(task.learning_rate, epsilon=1e-8), loss="mse")
    stopping = (
        [keras.callbacks.EarlyStopping(patience=task.patience, restore_best_weights=True)]
        if task.patience
        else []
    )
    quiet: Any = 0
    settings = {
        "batch_size": task.batch_size,
        "epochs": task.epochs,
        "validation_data": task.validation,
    }
    model.fit(*task.train, callbacks=stopping, verbose=quiet, **settings)
    return task.error(model.predict(task.test[0], verbose=quiet))


def reader(cell: str, steps: int, inputs: int, features: int, outputs: int) -> Any:
    """Keras's recurrent layer and what reads its last state."""
    import keras

    layer = getattr(keras.layers, cell)(features)
    return keras.Sequential([keras.Input((steps, inputs)), layer, keras.layers.Dense(outputs)])


def factors() -> Any:
    """`Factors` in Keras."""
    import keras

    given = Factors()
    pairs: Any = keras.Input((2,), dtype="int32")
    user, film = pairs[:, 0], pairs[:, 1]
    vectors = (
        keras.layers.Embedding(given.users, given.width)(user),
        keras.layers.Embedding(given.films, given.width)(film),
    )
    product = keras.ops.sum(vectors[0] * vectors[1], axis=1, keepdims=True)
    biases = keras.layers.Embedding(given.users, 1)(user) + keras.layers.Embedding(
        given.films, 1
    )(film)
    return keras.Model(pairs, product + biases)


def markdown(result: dict[str, Any]) -> str:
    """A table for the trials of the same starts: a row a trial, the mean, and in brackets the least
    and the greatest.
    """
    trials, found = result["trials"], result["machine"]
    lines = []
    for names in dict.fromkeys(tuple(trial["starts"]) for trial in trials.values()):
        lines += [
            f"| trial | naive | {' | '.join(names)} |",
            f"| --- | ---: |{' ---: |' * len(names)}",
        ]
        alike = {
            name: trial for name, trial in trials.items() if tuple(trial["starts"]) == names
        }
        lines += [
            f"| {name}: {trial['figure']} | {' | '.join(cells(trial))} |"
            for name, trial in alike.items()
        ]
        lines.append("")
    versions = ", ".join(
        f"{package} {found['versions'][package]}" for package in ("jaxdl", "jax", "keras")
    )
    seeds = sorted(
        {len(start["seeds"]) for trial in trials.values() for start in trial["starts"].values()}
    )
    runs = " or ".join(map(str, seeds))
    return (
        "\n".join(lines) + f"\nMeans of {runs} seeds, the least and the greatest; {versions}, "
        f"{found['date'][:10]}.\n"
    )


def cells(trial: dict[str, Any]) -> Iterator[str]:
    yield f"{trial['naive']:.3g}"
    for start in trial["starts"].values():
        yield f"{start['mean']:.3g} ({start['min']:.3g} – {start['max']:.3g})"


if __name__ == "__main__":
    main()
