"""A generator that draws digits, and a discriminator that it has to deceive: the dense pair and the
convolutional one.

The generator turns 128 random numbers into an image, and the discriminator says how likely an image
is to be real. Dense: layers of 256, 512 and 1024 against 1024, 512, 256 and 128, leaky relu of
slope 0.2. Convolutional: a 7×7 image of 64 channels, doubled twice by transposed convolutions,
against two convolutions that halve (Radford et al., 2016). Adam with step size 2e-4 and β₁ = 0.5;
the target of real images is 0.9 (Salimans et al., 2016), and the dense discriminator drops units:
without that it soon knows its examples by heart, and the generator draws fewer and fewer digits.

    python -m experiments.gan                        # about 15 minutes on two cores

Two networks that try to outwit each other have no loss that falls. What was learnt is judged by a
third: a classifier of digits, trained here on the same images. It counts how often each digit is
among 10,000 samples, and its last features tell how far the distribution of samples is from that of
real images: the Fréchet distance between normal distributions of the same moments (Heusel et al.,
2017), shown beside that of real test images, the least one can hope for.

Data: 60,000 + 10,000 handwritten digits of 28×28 pixels (LeCun et al., 1998), downloaded once.
Source: Goodfellow et al., *Generative adversarial nets* (2014).
Expect: a classifier of at least 99 %; of either pair all ten digits, and no digit less than 2 % of
the samples.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Float
from matplotlib.figure import Figure

import jaxdl as dl
from experiments import pictures
from experiments.reporting import Goal, first, run, show_table, write_result
from jaxdl import data, losses, metrics, models
from jaxdl.core.layer import Params, State

GOALS = (
    Goal("classifier_accuracy", 0.99),
    Goal("dense_least_share", 0.02),
    Goal("convolutional_least_share", 0.02),
)
LATENT = 128
SHAPE = (28, 28, 1)
PAIRS = {
    "dense": (
        models.dense_generator(256, 512, 1024, shape=SHAPE),
        models.dense_discriminator(1024, 512, 256, 128, dropout=0.3),
    ),
    "convolutional": (models.conv_generator(64, 32), models.conv_discriminator(32, 64)),
}
CLASSIFIER = models.cnn(32, 64, head=(64, 10), dropout=0.4)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Args:
        seed: of the initial weights, the order of training, and the samples.
        epochs: of the dense pair.
        convolutional_epochs: of the convolutional pair.
        classifier_epochs: of the classifier.
        batch_size: images a step.
        learning_rate: Adam's, for both players.
        samples: how many are judged.
        out: where the results go.
        quick: one epoch of each on 2,000 images, 1,000 samples.
    """

    seed: int = 0
    epochs: int = 20
    convolutional_epochs: int = 4
    classifier_epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 2e-4
    samples: int = 10_000
    out: Path = Path("runs/gan")
    quick: bool = False


class Classifier(NamedTuple):
    """A trained classifier of digits.

    Args:
        params, state: of `CLASSIFIER`.
        accuracy: on test images.
    """

    params: Params
    state: State
    accuracy: float

    def digits(self, images: Any) -> np.ndarray:
        return np.asarray(dl.predict(CLASSIFIER, self.params, self.state, images)).argmax(1)

    def features(self, images: Any) -> np.ndarray:
        """[images, 64]: what its last layer reads."""
        return np.asarray(
            dl.predict(CLASSIFIER[:-1], self.params, self.state, images), np.float64
        )


def main(config: Config) -> dict[str, Any]:
    train, test = data.mnist()
    if config.quick:
        train, test = first(2000, train), first(1000, test)
        config = dataclasses.replace(
            config, epochs=1, convolutional_epochs=1, classifier_epochs=1, samples=1000
        )
    classifier = learn_digits(train, test, config)
    features = classifier.features(train[0])
    figures: dict[str, Any] = {
        "classifier_accuracy": classifier.accuracy,
        "test_images_distance": frechet_distance(features, classifier.features(test[0])),
    }
    rows: list[list[Any]] = [
        ["test images", None, None, np.bincount(test[1], minlength=10).min() / len(test[1])]
    ]
    rows[0].append(figures["test_images_distance"])
    for name, epochs in (
        ("dense", config.epochs),
        ("convolutional", config.convolutional_epochs),
    ):
        trained, stages = play(name, epochs, train[0], test[0], config)
        samples = draw(name, trained.params, trained.state, config.samples, config.seed)
        shares = np.bincount(classifier.digits(samples), minlength=10) / len(samples)
        distance, seconds = (
            frechet_distance(features, classifier.features(samples)),
            trained.history["seconds"],
        )
        figures |= {
            f"{name}_least_share": shares.min(),
            f"{name}_shares": shares,
            f"{name}_distance": distance,
            f"{name}_seconds": sum(seconds),
            f"{name}_history": trained.history,
        }
        rows.append([name, len(seconds), f"{sum(seconds):.0f}", shares.min(), distance])
        over_time = pictures.images(
            np.stack(list(stages.values())), [f"epoch {epoch}" for epoch in stages]
        )
        pictures.save(over_time, config.out, f"{name}_epochs")
        pictures.save(
            pictures.images(samples[:160].reshape(8, 20, 28, 28)), config.out, f"{name}_samples"
        )
        pictures.save(game(trained.history), config.out, f"{name}_scores")

    show_table(
        f"Adversarial pairs on MNIST, judged by a classifier of {classifier.accuracy:.2%}",
        ["images", "epochs", "seconds", "rarest digit's share", "Fréchet distance"],
        rows,
    )
    write_result("gan", config, figures, GOALS)
    return figures


def learn_digits(train: Any, test: Any, config: Config) -> Classifier:
    """The judge: a convolutional network, dropout in front of its dense layers, a step size that
    falls to zero.
    """
    steps = config.classifier_epochs * -(-len(train[0]) // 128)
    trained = dl.fit(
        CLASSIFIER,
        train,
        loss=losses.softmax_cross_entropy,
        optimizer=optax.adam(optax.cosine_decay_schedule(2e-3, steps)),
        epochs=config.classifier_epochs,
        batch_size=128,
        metrics={"accuracy": metrics.accuracy},
        validation=test,
        seed=config.seed,
    )
    return Classifier(trained.params, trained.state, trained.history["validation_accuracy"][-1])


def play(
    name: str, epochs: int, train: Any, test: Any, config: Config
) -> tuple[dl.Run, dict[int, np.ndarray]]:
    """Trains a pair; also gives what the same 20 codes became after some of the epochs."""
    optimizer = optax.adam(config.learning_rate, b1=0.5)
    step = dl.Adversarial(
        *PAIRS[name], LATENT, optimizer, optimizer, dl.NonSaturating(smoothing=0.1)
    )
    shown = {1, 2, 3, 5, 10, 15, 20, epochs}
    stages = {}

    def look(stage: dl.Stage) -> None:
        if stage.epoch + 1 in shown:
            stages[stage.epoch + 1] = draw(
                name, stage.train_state.params, stage.train_state.state, 20, config.seed
            )[..., 0]

    trained = dl.train(
        step,
        train,
        epochs=epochs,
        batch_size=config.batch_size,
        validation=test,
        callbacks=[look],
        seed=config.seed,
    )
    return trained, stages


def draw(name: str, params: Params, state: State, count: int, seed: int) -> np.ndarray:
    """So many samples of a generator."""
    codes = jax.random.normal(jax.random.fold_in(jax.random.key(seed), 1), (count, LATENT))
    return np.asarray(
        dl.predict(PAIRS[name][0], params["generator"], state["generator"], codes)
    )


def frechet_distance(
    a: Float[np.ndarray, "n features"], b: Float[np.ndarray, "m features"]
) -> float:
    """|μ − ν|² + tr(A + B − 2 (A B)^½), of the means and covariances of two sets of features
    (Heusel et al., 2017, equation 6).

    The trace of (A B)^½ is that of (√A B √A)^½, whose matrix is symmetric.
    """
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(covariance_a)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance_b @ root), 0)).sum()
    apart = np.square(a.mean(0) - b.mean(0)).sum()
    return float(apart + np.trace(covariance_a) + np.trace(covariance_b) - 2 * shared)


def game(history: dict[str, list[Any]]) -> Figure:
    """How real the discriminator holds either kind to be, and both losses, over the epochs."""
    figure, axes = pictures.panels(2)
    for axis, names, label in zip(
        axes,
        (("real_score", "fake_score"), ("discriminator_loss", "generator_loss")),
        ("D(x)", "loss"),
        strict=True,
    ):
        for colour, name in enumerate(names):
            epochs = range(1, len(history[name]) + 1)
            axis.plot(
                epochs,
                history[name],
                "--",
                color=f"C{colour}",
                label=f"{name.replace('_', ' ')}, training",
            )
            axis.plot(
                epochs,
                history[f"validation_{name}"],
                color=f"C{colour}",
                label=f"{name.replace('_', ' ')}, test",
            )
        axis.set_ylabel(label)
        pictures.count_epochs(axis)
        axis.legend(fontsize="small")
    return figure


if __name__ == "__main__":
    run(main, Config, __doc__)
