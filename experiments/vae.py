"""Digits from a plane: a variational autoencoder with a code of 2 numbers, and one of 20.

An encoder gives for each image a normal distribution over codes, a decoder for each code the
probability of every pixel. Training raises the evidence lower bound, ELBO = E log p(x | z) −
KL(q(z | x) ‖ N(0, I)): how well an image is given back from a random code of its own, less what the
code tells that a standard normal one would not. The second term makes every code from N(0, I) stand
for some digit: new ones are drawn by decoding random numbers. 784-500-500-code on either side,
Adam, and a step size that falls to zero along a cosine.

    python -m experiments.vae                        # about 3 minutes on two cores

Data: 60,000 + 10,000 handwritten digits of 28×28 pixels (LeCun et al., 1998), downloaded once; grey
values are read as the probabilities of a Bernoulli distribution, as is usual, so that bounds here
compare only with others that do the same.
Source: Kingma and Welling, *Auto-encoding variational Bayes* (2014).
Expect: test ELBO at least -105 nats with a code of 20.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float
from matplotlib.figure import Figure

import jaxdl as dl
from experiments import pictures
from experiments.reporting import Goal, first, run, show_table, write_result
from jaxdl import data, models

GOALS = (Goal("test_elbo_20", -105.0),)
LATENTS = (2, 20)
SHAPE = (28, 28, 1)


def model(latent: int) -> models.VariationalAutoencoder:
    encoder = dl.Sequential(dl.Flatten(), *models.mlp(500, 500, output=jax.nn.relu))
    decoder = dl.Sequential(*models.mlp(500, 500, 784), dl.Reshape(SHAPE))
    return models.VariationalAutoencoder(encoder, decoder, latent)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Args:
        seed: of the initial weights, the order of training and the codes.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: Adam's first.
        out: where the results go.
        quick: one epoch on 2,000 images.
    """

    seed: int = 0
    epochs: int = 12
    batch_size: int = 128
    learning_rate: float = 1e-3
    out: Path = Path("runs/vae")
    quick: bool = False


def main(config: Config) -> dict[str, Any]:
    (train, _), (test, labels) = data.mnist()
    if config.quick:
        train, test, labels = *first(2000, (train,)), *first(1000, (test, labels))
        config = dataclasses.replace(config, epochs=1)
    runs = {latent: learn(latent, train, test, config) for latent in LATENTS}

    figures: dict[str, Any] = {}
    for latent, trained in runs.items():
        figures |= {
            f"test_elbo_{latent}": -trained.history["validation_loss"][-1],
            f"test_kl_{latent}": trained.history["validation_kl"][-1],
            f"seconds_{latent}": sum(trained.history["seconds"]),
            f"history_{latent}": trained.history,
        }
    show_table(
        "MNIST: evidence lower bound, in nats an image",
        [
            "code",
            "epochs",
            "training ELBO",
            "test ELBO",
            "test log p(x | z)",
            "test KL",
            "seconds",
        ],
        [row(latent, trained) for latent, trained in runs.items()],
    )
    pictures.save(manifold(runs[2]), config.out, "plane")
    pictures.save(scatter(runs[2], test, labels), config.out, "codes")
    pictures.save(samples(runs, config.seed), config.out, "samples")
    pictures.save(curves(runs), config.out, "learning_curves")
    write_result("vae", config, figures, GOALS)
    return figures


def learn(latent: int, train: Any, test: Any, config: Config) -> dl.Run:
    """Trains the autoencoder with a code of that length."""
    steps = config.epochs * -(-len(train) // config.batch_size)
    step = dl.Variational(
        model(latent), optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps))
    )
    return dl.train(
        step,
        train,
        epochs=config.epochs,
        batch_size=config.batch_size,
        validation=test,
        seed=config.seed,
    )


def row(latent: int, trained: dl.Run) -> list[Any]:
    history = trained.history
    losses = (
        -history[name][-1] for name in ("loss", "validation_loss", "validation_reconstruction")
    )
    shown = [f"{value:.2f}" for value in (*losses, history["validation_kl"][-1])]
    return [latent, len(history["loss"]), *shown, f"{sum(history['seconds']):.0f}"]


def manifold(trained: dl.Run, side: int = 20) -> Figure:
    """What the decoder draws over the plane of codes, at the quantiles of the normal distribution
    in either direction.
    """
    quantiles = jax.scipy.stats.norm.ppf(
        np.linspace(0.5 / side, 1 - 0.5 / side, side, dtype=np.float32)
    )
    second, first = np.meshgrid(
        np.asarray(quantiles)[::-1], np.asarray(quantiles), indexing="ij"
    )
    codes = np.stack([first, second], -1).reshape(-1, 2)
    logits, _ = model(2).decode_latent(trained.params, trained.state, jnp.asarray(codes))
    return pictures.images(np.asarray(jax.nn.sigmoid(logits)).reshape(side, side, 28, 28))


def codes(trained: dl.Run, images: Any) -> Float[np.ndarray, "images latent"]:
    """The mean of each image's distribution over codes."""
    (mean, _), _ = jax.jit(model(2).encode)(trained.params, trained.state, images)
    return np.asarray(mean)


def scatter(trained: dl.Run, test: Any, labels: Any) -> Figure:
    """Where test images lie in the plane of codes, by their digit."""
    figure, (axis,) = pictures.panels(1)
    figure.set_size_inches(6.2, 5.4)
    places = codes(trained, test)
    for digit in range(10):
        axis.scatter(
            *places[labels == digit].T,
            s=4,
            alpha=0.6,
            linewidths=0,
            label=str(digit),
            color=f"C{digit}",
        )
    axis.set(xlabel="first number of the code", ylabel="second", aspect="equal")
    figure.legend(title="digit", markerscale=4, loc="outside right center", frameon=False)
    return figure


def samples(runs: dict[int, dl.Run], seed: int) -> Figure:
    """New digits of either autoencoder, decoded from random codes."""
    rows = []
    for latent, trained in runs.items():
        logits = model(latent).sample(trained.params, trained.state, jax.random.key(seed), 80)
        rows.append(np.asarray(jax.nn.sigmoid(logits)).reshape(4, 20, 28, 28))
    return pictures.images(
        np.concatenate(rows), [f"code of {latent}" for latent in runs for _ in range(4)]
    )


def curves(runs: dict[int, dl.Run]) -> Figure:
    """The bound over the epochs."""
    figure, (axis,) = pictures.panels(1)
    for colour, (latent, trained) in enumerate(runs.items()):
        epochs = range(1, len(trained.history["loss"]) + 1)
        axis.plot(
            epochs,
            np.negative(trained.history["loss"]),
            "--",
            color=f"C{colour}",
            label=f"training, code of {latent}",
        )
        axis.plot(
            epochs,
            np.negative(trained.history["validation_loss"]),
            color=f"C{colour}",
            label=f"test, code of {latent}",
        )
    axis.set_ylabel("evidence lower bound in nats")
    pictures.count_epochs(axis)
    axis.legend(fontsize="small")
    return figure


if __name__ == "__main__":
    run(main, Config, __doc__)
