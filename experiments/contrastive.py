"""Digits told apart without labels: two views of an image have to find each other among those of
all others, and a linear probe with ten labels a class shows what was learnt.

A view is the image turned, sheared, scaled and shifted at random, with a square of it blackened.
An encoder of three convolutions of stride 2 (32, 64 and 128 channels) and a dense layer gives 128
features of each view, a head of 128-64 units what is compared: NT-Xent, the cross-entropy of which
of the batch's other views belongs to the same image, by cosines at temperature 0.2. The examples
of a batch meet in the loss, which an objective declares by `mixes`. Adam, batches of 256 images, a
step size that falls to zero along a cosine.

    python -m experiments.contrastive                # --quick for a short form

A probe is logistic regression on what the frozen encoder gives for 10 labelled images of each digit
(of the 60,000 training images, the mean of 3 draws), its penalty chosen by cross-validation among
those labels. The same probe reads raw pixels, and the same encoder before training.

Data: 60,000 + 10,000 handwritten digits of 28×28 pixels (LeCun et al., 1998), downloaded once.
Source: Chen, Kornblith, Norouzi, Hinton, *A simple framework for contrastive learning of visual
representations* (2020).
Expect: with 10 labels a class at least 10 points more of the test images right than from raw
pixels, and at least 5 more than from the untrained encoder.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int, Key, Shaped
from matplotlib.figure import Figure

import jaxdl as dl
from experiments import pictures
from experiments.reporting import Goal, first, run, show_table, write_result
from jaxdl import data, losses, models
from jaxdl.core.layer import Params, State

GOALS = (Goal("gain_over_pixels", 0.1), Goal("gain_over_untrained", 0.05))
ENCODER = dl.Sequential(
    dl.Conv(32, 3, 2), jax.nn.relu, dl.Conv(64, 3, 2), jax.nn.relu, dl.Conv(128, 3, 2),
    jax.nn.relu, dl.Flatten(), dl.Dense(128), jax.nn.relu
)  # fmt: skip
MODEL = dl.Sequential(encoder=ENCODER, head=models.mlp(128, 64))
LABELS = (10, 100)
"""Of each class, for the probes; the goals are of the first."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Args:
        seed: of the initial weights, the order of training, the views and the draws of labels.
        epochs: passes over the training images.
        batch_size: images a step, each in two views.
        learning_rate: Adam's, at the start.
        temperature: of NT-Xent.
        draws: how many sets of labelled images each probe is the mean of.
        out: where the results go.
        quick: one epoch on 512 images, one draw.
    """

    seed: int = 0
    epochs: int = 6
    batch_size: int = 256
    learning_rate: float = 2e-3
    temperature: float = 0.2
    draws: int = 3
    out: Path = Path("runs/contrastive")
    quick: bool = False


@dataclasses.dataclass(frozen=True)
class SimCLR(dl.Objective):
    """NT-Xent of two random views of each image.

    Args:
        model: from images to vectors.
        temperature: τ.
    """

    model: dl.Layer
    temperature: float
    mixes = True

    def loss(
        self, params: Params, state: State, batch: dl.Batch, mode: dl.Mode
    ) -> tuple[Array, State, dict[str, Array]]:
        views = [view(mode.for_part(name).key, batch.inputs) for name in ("first", "second")]
        vectors, state = self.model.apply(params, state, jnp.concatenate(views), mode)
        outputs = tuple(jnp.split(vectors, 2))
        mask = jnp.ones(batch.size, bool) if batch.mask is None else batch.mask
        temperature = self.temperature
        each = losses.nt_xent(outputs, batch.targets, mask=mask, temperature=temperature)
        return each, state, {}


def view(
    key: Key[Array, ""], images: Shaped[Array, "batch height width 1"]
) -> Float[Array, "batch height width 1"]:
    """A random view of each image, in [0, 1]: turned by up to 23°, sheared by up to 0.3, scaled
    along either axis by 0.74 to 1.35, shifted by up to 3 pixels; a square of 8 pixels is black.
    """
    shape_key, square_key = jax.random.split(key)
    drawn = jax.random.uniform(shape_key, (len(images), 6), minval=-1, maxval=1)
    angle = 0.4 * drawn[:, 0]
    shear = 0.3 * drawn[:, 1]
    scale = jnp.exp(0.3 * drawn[:, 2:4])
    cosine = jnp.cos(angle)
    sine = jnp.sin(angle)
    down = jnp.stack([cosine, shear * cosine - sine], axis=1) * scale[:, :1]
    right = jnp.stack([sine, shear * sine + cosine], axis=1) * scale[:, 1:]
    moved = warped(images / 255, jnp.stack([down, right], axis=1), 3 * drawn[:, 4:])
    return data.augment.cutout(square_key, moved, size=8)


def warped(
    images: Float[Array, "batch height width 1"],
    matrix: Float[Array, "batch 2 2"],
    shift: Float[Array, "batch 2"],
) -> Float[Array, "batch height width 1"]:
    """y(p) = x(A (p − c) + c + s) with the image's centre c, between pixels by bilinear
    interpolation, 0 outside.
    """
    height, width = images.shape[1:3]
    down = jnp.arange(height, dtype=jnp.float32)
    right = jnp.arange(width, dtype=jnp.float32)
    rows, columns = jnp.meshgrid(down, right, indexing="ij")
    centre = jnp.array([[(height - 1) / 2], [(width - 1) / 2]])
    places = jnp.stack([rows.ravel(), columns.ravel()]) - centre
    sources = matrix @ places[None] + centre[None] + shift[:, :, None]

    def one(image: Array, source: Array) -> Array:
        read = jax.scipy.ndimage.map_coordinates(image[..., 0], list(source), order=1)
        return read.reshape(height, width, 1)

    return jax.vmap(one)(images, sources)


class Read(NamedTuple):
    """What a representation makes of the images that probes read.

    Args:
        train: of the training images, [images, features].
        test: of the test images.
    """

    train: np.ndarray
    test: np.ndarray


def encoded(params: Params, train: Any, test: Any) -> Read:
    """What the encoder gives for images that nothing was done to."""

    def features(images: Any) -> np.ndarray:
        return np.asarray(dl.predict(ENCODER, params, {}, images / np.float32(255)))

    return Read(features(train), features(test))


def probed(
    read: Read, labels: tuple[np.ndarray, np.ndarray], count: int, config: Config
) -> Float[np.ndarray, " draws"]:
    """Test accuracies of logistic regression on so many labelled images of each class.

    Features are centred, and divided by one number; the penalty is that of five which
    cross-validation among the labelled images prefers.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    mean = read.train.mean(axis=0)
    scale = (read.train - mean).std()
    accuracies = []
    for draw in range(config.draws):
        rng = np.random.default_rng([config.seed, draw])
        rows = labelled(rng, labels[0], count)
        probe = GridSearchCV(
            LogisticRegression(max_iter=2000), {"C": np.logspace(-3, 1, 5)}, cv=3
        )
        probe.fit((read.train[rows] - mean) / scale, labels[0][rows])
        accuracies.append(probe.score((read.test - mean) / scale, labels[1]))
    return np.array(accuracies)


def labelled(
    rng: np.random.Generator, labels: Int[np.ndarray, " images"], count: int
) -> Int[np.ndarray, " labelled"]:
    """So many images of each class, at random."""
    classes = [np.flatnonzero(labels == each) for each in np.unique(labels)]
    return np.concatenate([rng.choice(each, count, replace=False) for each in classes])


def main(config: Config) -> dict[str, Any]:
    (train, train_labels), (test, test_labels) = data.mnist()
    counts = LABELS
    if config.quick:
        train, train_labels = first(512, (train, train_labels))
        test, test_labels = first(500, (test, test_labels))
        config = dataclasses.replace(config, epochs=1, draws=1)
        counts = LABELS[:1]
    untrained, _ = MODEL.init(jax.random.key(config.seed), first(1, (train,))[0] / 255)
    trained = learn(train, test, config)
    representations = {
        "pixels": Read(*(images.reshape(len(images), -1) / 255 for images in (train, test))),
        "untrained": encoded(untrained["encoder"], train, test),
        "trained": encoded(trained.params["encoder"], train, test),
    }
    labels = (train_labels, test_labels)
    accuracies = {
        name: [probed(read, labels, count, config) for count in counts]
        for name, read in representations.items()
    }
    means = {name: [each.mean() for each in rows] for name, rows in accuracies.items()}
    figures = {
        "gain_over_pixels": means["trained"][0] - means["pixels"][0],
        "gain_over_untrained": means["trained"][0] - means["untrained"][0],
        "labels_a_class": counts,
        "accuracies": accuracies,
        "mean_accuracies": means,
        "seconds": sum(trained.history["seconds"]),
        "history": trained.history,
    }
    show_table(
        "MNIST: test accuracy of a linear probe",
        ["probe of", *(f"{count} labels a class" for count in counts)],
        [
            [name, *(f"{each.mean():.2%} ± {each.std():.2%}" for each in rows)]
            for name, rows in accuracies.items()
        ],
    )
    pictures.save(views(train, config.seed), config.out, "views")
    pictures.save(bars(means, counts), config.out, "probes")
    write_result("contrastive", config, figures, GOALS)
    return figures


def learn(train: Any, test: Any, config: Config) -> dl.Run:
    """Trains encoder and head without labels."""
    steps = config.epochs * -(-len(train) // config.batch_size)
    return dl.train(
        SimCLR(MODEL, config.temperature),
        train,
        optimizer=optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps)),
        epochs=config.epochs,
        batch_size=config.batch_size,
        validation=test,
        seed=config.seed,
    )


def views(images: Any, seed: int) -> Figure:
    """Twenty images, and two views of each."""
    shown = jnp.asarray(images[:20])
    rows = [shown / 255, *(view(jax.random.key(seed + number), shown) for number in range(2))]
    return pictures.images(
        np.stack([np.asarray(row)[..., 0] for row in rows]), ["image", "view", "view"]
    )


def bars(means: dict[str, list[float]], counts: tuple[int, ...]) -> Figure:
    """The accuracy of each probe."""
    figure, (axis,) = pictures.panels(1)
    width = 0.8 / len(means)
    for number, (name, each) in enumerate(means.items()):
        places = np.arange(len(counts)) + (number - 1) * width
        drawn = axis.bar(places, each, width, label=name)
        axis.bar_label(drawn, [f"{value:.1%}" for value in each], fontsize="small")
    axis.set_xticks(range(len(counts)), [f"{count} labels a class" for count in counts])
    axis.set(ylabel="test accuracy", ylim=(0, 1.12))
    axis.legend(fontsize="small", ncols=3, loc="upper center")
    return figure


if __name__ == "__main__":
    run(main, Config, __doc__)
