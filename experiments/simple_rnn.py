"""A recurrent network learns to count: does a sequence of 10 bits hold more ones than zeros?

Embedding(16) turns each bit into a vector, SimpleRNN(16) reads the ten of them, and Dense(1) judges
its last state; binary cross-entropy, Adam. There are 1,024 sequences in all. A quarter of them is
kept from training, so that what is right there was
not learnt by heart: the network has to have found a rule for sequences that it never saw.

    python -m experiments.simple_rnn                 # five seconds

After training, the last layer reads every state instead of the last: what it answers goes up with
each one that the network has read and down with each zero.

Data: all sequences of 10 bits. Source: Elman, *Finding structure in time* (1990).
Expect: test accuracy at least 0.99.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int32
from matplotlib.figure import Figure

import jaxdl as dl
from experiments import pictures
from experiments.reporting import Goal, run, show_table, write_result
from jaxdl import losses, metrics
from jaxdl.core.layer import Params

GOALS = (Goal("test_accuracy", 0.99),)
LENGTH = 10

model = dl.Sequential(dl.Embedding(2, 16), dl.SimpleRNN(16, sequence=False), dl.Dense(1))


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Args:
        seed: of the split, the initial weights and the order of training.
        epochs: passes over the training sequences.
        batch_size: sequences a step.
        learning_rate: Adam's.
        out: where the results go.
        quick: 5 epochs.
    """

    seed: int = 0
    epochs: int = 100
    batch_size: int = 32
    learning_rate: float = 3e-3
    out: Path = Path("runs/simple_rnn")
    quick: bool = False


def main(config: Config) -> dict[str, Any]:
    train, test = sequences(config.seed)
    trained = dl.fit(
        model,
        train,
        loss=losses.binary_cross_entropy,
        optimizer=optax.adam(config.learning_rate),
        epochs=5 if config.quick else config.epochs,
        batch_size=config.batch_size,
        metrics={"accuracy": metrics.accuracy},
        validation=test,
        seed=config.seed,
    )

    figures = {
        "test_accuracy": trained.history["validation_accuracy"][-1],
        "training_accuracy": trained.history["accuracy"][-1],
        "always_the_commoner_answer": float(max(test[1].mean(), 1 - test[1].mean())),
        "seconds": sum(trained.history["seconds"]),
        "compile_seconds": trained.compile_seconds,
        "history": trained.history,
    }
    show_table(
        "More ones than zeros?",
        ["", "accuracy"],
        [
            [f"{len(train[1])} sequences of training", figures["training_accuracy"]],
            [f"{len(test[1])} sequences never seen", figures["test_accuracy"]],
            ["always the commoner answer", figures["always_the_commoner_answer"]],
        ],
    )
    pictures.save(
        pictures.curves_of_seeds([trained.history], "accuracy"), config.out, "accuracy"
    )
    pictures.save(counting(trained.params, test[0]), config.out, "counting")
    write_result("simple_rnn", config, figures, GOALS)
    return figures


def sequences(seed: int) -> tuple[Any, Any]:
    """All sequences of ten bits with their answers, [n, 10] and [n, 1] int32: three quarters, and
    the rest.
    """
    every = (np.arange(2**LENGTH)[:, None] >> np.arange(LENGTH)[None] & 1).astype(np.int32)
    every = np.random.default_rng(seed).permutation(every)
    answers = (every.sum(1, keepdims=True) > LENGTH / 2).astype(np.int32)
    held = len(every) // 4
    return (every[held:], answers[held:]), (every[:held], answers[:held])


def logits_by_step(
    params: Params, bits: Int32[np.ndarray, "n steps"]
) -> Float[jax.Array, "n steps"]:
    """What the network would answer after each step: Dense on every state, instead of on the
    last.
    """
    reader = dl.Sequential(dl.Embedding(2, 16), dl.SimpleRNN(16), dl.Dense(1))
    return dl.forward(reader, {})(params, jnp.asarray(bits))[..., 0]


def counting(params: Params, bits: Int32[np.ndarray, "n steps"]) -> Figure:
    """What the network would answer after each bit, and what it answers in the end, of sequences
    never seen.
    """
    ahead = np.cumsum(2 * bits - 1, 1)
    logits = np.asarray(logits_by_step(params, bits))
    figure, axes = pictures.panels(2)
    for row in np.argsort(ahead[:, -1], stable=True)[
        [len(bits) // 8, len(bits) // 2, -len(bits) // 8]
    ]:
        axes[0].plot(
            range(1, LENGTH + 1),
            logits[row],
            "o-",
            markersize=3,
            label="".join(map(str, bits[row])),
        )
    axes[0].axhline(0, color="black", linewidth=0.8)
    axes[0].set(xlabel="bits read", ylabel="logit of “more ones”", title="three sequences")
    axes[0].legend(fontsize="small", prop={"family": "monospace", "size": 8})
    jitter = np.random.default_rng(0).uniform(-0.2, 0.2, len(bits))
    axes[1].plot(ahead[:, -1] + jitter, logits[:, -1], ".", markersize=4)
    axes[1].axhline(0, color="black", linewidth=0.8)
    axes[1].axvline(1, color="black", linewidth=0.8, linestyle=":")
    axes[1].set(
        xlabel="ones minus zeros, all 10 bits read",
        ylabel="logit of “more ones”",
        title="all sequences never seen",
    )
    return figure


if __name__ == "__main__":
    run(main, Config, __doc__)
