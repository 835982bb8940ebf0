"""Images through the eye of a needle: 784 pixels become 32 numbers, and the 32 numbers pixels
again.

An autoencoder learns to give back what it is given. What lies in between is too narrow to hold
everything, and so has to hold what digits have in common. Four of them: dense 784-32-784, the same
with dropout of a tenth of the code, a convolutional one whose code is an image of 7×7 pixels and 8
channels, and a dense one that is shown noisy images (Gaussian, σ = 0.5, clipped to [0, 1]) and
asked for the clean ones. Codes are linear: with relu some of the 32 numbers soon are 0 for every
image, and are lost. Binary cross-entropy of each pixel; Adam, whose step size falls to zero along a
cosine.

    python -m experiments.autoencoder                # about 3 minutes on two cores

The step `Reconstruction` is all that tells this from a classifier; the loop is that of `fit`.

Data: 60,000 + 10,000 handwritten digits of 28×28 pixels (LeCun et al., 1998), downloaded once;
labels are not used.
Source: Hinton and Salakhutdinov (2006); with noise, Vincent et al. (2008). Keras's tutorial reaches
0.093 to 0.094, dense.
Expect: test binary cross-entropy of the dense one without dropout at most 0.094, as a mean over
pixels.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from matplotlib.figure import Figure

import jaxdl as dl
from experiments import pictures
from experiments.reporting import Goal, first, run, show_table, write_result
from jaxdl import data, losses, models

GOALS = (Goal("dense_test_loss", 0.094, "at most"),)
SHAPE = (28, 28, 1)
NOISE = 0.5


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Args:
        seed: of the initial weights, the order of training, dropout and noise.
        epochs: of the dense ones.
        convolutional_epochs: of the convolutional one.
        batch_size: images a step.
        learning_rate: Adam's first.
        out: where the results go.
        quick: one epoch on 2,000 images.
    """

    seed: int = 0
    epochs: int = 12
    convolutional_epochs: int = 4
    batch_size: int = 128
    learning_rate: float = 3e-3
    out: Path = Path("runs/autoencoder")
    quick: bool = False


def noisy(
    key: Array, x: Float[Array, "batch height width channels"]
) -> Float[Array, "batch height width channels"]:
    return jnp.clip(x + NOISE * jax.random.normal(key, x.shape, x.dtype), 0, 1)


MODELS = {
    "dense": models.dense_autoencoder(32, shape=SHAPE),
    "dense, dropout": models.dense_autoencoder(32, shape=SHAPE, dropout=0.1),
    "convolutional": models.conv_autoencoder(16, 8),
    "denoising": models.dense_autoencoder(256, 64, shape=SHAPE),
}


def main(config: Config) -> dict[str, Any]:
    (train, _), (test, labels) = data.mnist()
    if config.quick:
        train, test, labels = *first(2000, (train,)), *first(1000, (test, labels))
        config = dataclasses.replace(config, epochs=1, convolutional_epochs=1)
    runs = {name: learn(name, train, test, config) for name in MODELS}

    figures: dict[str, Any] = {}
    for name, trained in runs.items():
        label = name.replace(", ", "_")
        figures |= {
            f"{label}_test_loss": trained.history["validation_loss"][-1],
            f"{label}_seconds": sum(trained.history["seconds"]),
            f"{label}_history": trained.history,
        }
    show_table(
        "MNIST reconstructed: binary cross-entropy of a pixel",
        ["autoencoder", "parameters", "epochs", "training", "test", "seconds"],
        [row(name, trained) for name, trained in runs.items()],
        "The denoising one is measured on noisy images. No model reaches 0: grey pixels have an "
        "entropy of their own.",
    )
    pictures.save(
        reconstructions(runs, test, labels, config.seed), config.out, "reconstructions"
    )
    pictures.save(curves(runs), config.out, "learning_curves")
    write_result("autoencoder", config, figures, GOALS)
    return figures


def learn(name: str, train: Any, test: Any, config: Config) -> dl.Run:
    """Trains one of the autoencoders."""
    epochs = config.convolutional_epochs if name == "convolutional" else config.epochs
    schedule = optax.cosine_decay_schedule(
        config.learning_rate, epochs * -(-len(train) // config.batch_size)
    )
    step = dl.Reconstruction(
        MODELS[name],
        losses.binary_cross_entropy,
        optax.adam(schedule),
        corrupt=noisy if name == "denoising" else None,
    )
    return dl.train(
        step,
        train,
        epochs=epochs,
        batch_size=config.batch_size,
        validation=test,
        seed=config.seed,
    )


def row(name: str, trained: dl.Run) -> list[Any]:
    history = trained.history
    figures = (f"{history[figure][-1]:.4f}" for figure in ("loss", "validation_loss"))
    return [
        name,
        dl.tree.parameter_count(trained.params),
        len(history["loss"]),
        *figures,
        f"{sum(history['seconds']):.0f}",
    ]


def reconstructions(
    runs: dict[str, dl.Run], test: np.ndarray, labels: np.ndarray, seed: int
) -> Figure:
    """Two test images of each digit, what every autoencoder makes of them, and what the denoising
    one was shown.
    """
    chosen = np.concatenate([np.flatnonzero(labels == digit)[:2] for digit in range(10)])
    x = test[chosen].astype(np.float32) / 255
    shown = np.asarray(noisy(jax.random.key(seed), jnp.asarray(x)))
    rows = {"original": x}
    for name, trained in runs.items():
        if name == "denoising":
            rows["noisy"] = shown
        logits = dl.predict(
            MODELS[name], trained.params, trained.state, shown if name == "denoising" else x
        )
        rows[name] = np.asarray(jax.nn.sigmoid(logits))
    return pictures.images(np.stack(list(rows.values()))[..., 0], list(rows))


def curves(runs: dict[str, dl.Run]) -> Figure:
    """The loss over the epochs of every autoencoder."""
    figure, (axis,) = pictures.panels(1)
    for colour, (name, trained) in enumerate(runs.items()):
        epochs = range(1, len(trained.history["loss"]) + 1)
        axis.plot(epochs, trained.history["loss"], "--", color=f"C{colour}")
        axis.plot(epochs, trained.history["validation_loss"], color=f"C{colour}", label=name)
    axis.set(ylabel="binary cross-entropy (training dashed)", ylim=(None, 0.16))
    pictures.count_epochs(axis)
    axis.legend(fontsize="small")
    return figure


if __name__ == "__main__":
    run(main, Config, __doc__)
