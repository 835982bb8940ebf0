"""Digits out of noise, each the one that was asked for: a denoising diffusion model with
classifier-free guidance.

An image x is mixed with noise, z = α x + σ ε with α = cos(π t / 2), σ = sin(π t / 2) and t uniform
in [0, 1], and a network is trained to give back v = α ε − σ x, from which both x and ε follow. It
is told the digit, but for a tenth of the images, where it is told that it is not. Sampling goes
from noise at t = 1 to an image at t = 0 in 250 steps by the Gaussian q(z_s | z_t, x), with the x of
v = (1 + w) v(digit) − w v(none), whose guidance w is 1. The network is dense: 784-768, three
residual blocks of 768 that time and digit scale and shift, 768-784. Adam, a step size that falls to
zero along a cosine, and a moving average of the parameters.

    python -m experiments.diffusion_mnist            # --quick for a short form

What was learnt is judged by a classifier of digits, that of `experiments/gan.py`: how many of 1,000
samples, 100 of each digit, it takes for the digit that was asked for, and the Fréchet distance of
its last features from those of training images, which is larger where samples are alike.

Data: 60,000 + 10,000 handwritten digits of 28×28 pixels (LeCun et al., 1998), downloaded once.
Source: Ho, Jain, Abbeel, *Denoising diffusion probabilistic models* (2020); Salimans and Ho,
*Progressive distillation for fast sampling of diffusion models* (2022), for v; Ho and Salimans,
*Classifier-free diffusion guidance* (2022).
Expect: a classifier of at least 99 %, which recognises the digit asked for in at least 90 % of the
samples.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jaxtyping import Float, Int, Key
from matplotlib.figure import Figure

import jaxdl as dl
from experiments import gan, pictures
from experiments.reporting import Goal, first, run, show_table, write_result
from jaxdl import data, losses
from jaxdl.core.layer import Params, State
from jaxdl.layers.wiring import Wiring

GOALS = (Goal("recognised", 0.9), Goal("classifier_accuracy", 0.99))
NONE = 10
"""The number of the class that is told in place of a digit."""
SHAPE = (28, 28, 1)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Args:
        seed: of the initial weights, the order of training, the noise and the samples.
        epochs: passes over the training images.
        classifier_epochs: of the classifier.
        batch_size: images a step.
        learning_rate: Adam's, at the start.
        guidance: w.
        steps: how many lead from noise to an image.
        samples: how many are judged, a tenth of them of each digit.
        out: where the results go.
        quick: one epoch of either network on 512 images, 20 samples of 10 steps.
    """

    seed: int = 0
    epochs: int = 12
    classifier_epochs: int = 8
    batch_size: int = 128
    learning_rate: float = 1e-3
    guidance: float = 1.0
    steps: int = 250
    samples: int = 1000
    out: Path = Path("runs/diffusion_mnist")
    quick: bool = False


@dataclasses.dataclass(frozen=True)
class Denoiser(dl.Composite):
    """v of a noisy image, its time and its digit: a dict of "image" [batch, 28, 28, 1], "time"
    [batch] and "digit" [batch].

    Args:
        width: of the hidden layers.
        blocks: how many residual blocks.
    """

    width: int = 768
    blocks: int = 3

    def wire(self, wiring: Wiring, x: Any) -> Any:
        waves = wiring.math(time_features, x["time"])
        time = wiring.part("time", dl.Dense(256), waves)
        digit = wiring.part("digit", dl.Embedding(NONE + 1, 256), x["digit"])
        told = wiring.math(lambda time, digit: jax.nn.silu(time + digit), time, digit)
        flat = wiring.part("flat", dl.Flatten(), x["image"])
        h = wiring.part("in", dl.Dense(self.width), flat)
        for index in range(self.blocks):
            inner = wiring.part(f"norm_{index}", dl.LayerNorm(), h)
            inner = wiring.part(f"up_{index}", dl.Dense(self.width), inner)
            change = wiring.part(f"told_{index}", dl.Dense(2 * self.width), told)
            inner = wiring.math(modulated, inner, change)
            inner = wiring.part(f"down_{index}", dl.Dense(self.width), inner)
            h = wiring.math(jnp.add, h, inner)
        h = wiring.part("norm", dl.LayerNorm(), h)
        return wiring.part("out", dl.Sequential(dl.Dense(784), dl.Reshape(SHAPE)), h)


def time_features(time: Float[Array, " batch"]) -> Float[Array, "batch 64"]:
    """Sines and cosines of 32 frequencies, from 1 to 1,000."""
    angles = time[:, None] * jnp.geomspace(1.0, 1000.0, 32)[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def modulated(
    h: Float[Array, "batch width"], change: Float[Array, "batch double"]
) -> Float[Array, "batch width"]:
    """silu(h (1 + scale) + shift)."""
    scale, shift = jnp.split(change, 2, axis=-1)
    return jax.nn.silu(h * (1 + scale) + shift)


MODEL = Denoiser()


def signal_and_noise(time: Float[Array, "*batch"]) -> tuple[Array, Array]:
    """α and σ."""
    return jnp.cos(jnp.pi / 2 * time), jnp.sin(jnp.pi / 2 * time)


@dataclasses.dataclass(frozen=True)
class Denoising(dl.Objective):
    """The squared error of v at a random time.

    Args:
        model: v of "image", "time" and "digit".
        untold: how often the digit is not told.
    """

    model: dl.Layer
    untold: float = 0.1

    def init(self, key: Array, batch: dl.Batch) -> tuple[Params, State]:
        time = jax.ShapeDtypeStruct((batch.size,), jnp.float32)
        image = jax.ShapeDtypeStruct(batch.inputs.shape, jnp.float32)
        return self.model.init(key, {"image": image, "time": time, "digit": batch.targets})

    def loss(
        self, params: Params, state: State, batch: dl.Batch, mode: dl.Mode
    ) -> tuple[Array, State, dict[str, Array]]:
        time = jax.random.uniform(mode.for_part("time").key, (batch.size,))
        noise = jax.random.normal(mode.for_part("noise").key, batch.inputs.shape)
        drawn = jax.random.uniform(mode.for_part("digit").key, (batch.size,))
        digit = jnp.where(drawn < self.untold, NONE, batch.targets)
        image = batch.inputs / 127.5 - 1
        alpha, sigma = signal_and_noise(time[:, None, None, None])
        seen = {"image": alpha * image + sigma * noise, "time": time, "digit": digit}
        velocity, state = self.model.apply(params, state, seen, mode)
        wanted = alpha * noise - sigma * image
        return losses.mean_squared_error(velocity, wanted), state, {}


@functools.partial(jax.jit, static_argnames=("model", "steps"))
def sampled(
    model: dl.Layer,
    params: Params,
    key: Key[Array, ""],
    digits: Int[Array, " batch"],
    guidance: Float[Array, ""],
    steps: int,
) -> Float[Array, "batch 28 28 1"]:
    """Images of these digits, in [0, 1].

    Args:
        model: v, as `Denoising` trains it.
        params: its parameters.
        key: of the noise.
        digits: what is asked for.
        guidance: w; 0 is none.
        steps: how many.
    """
    count = len(digits)

    def velocity(z: Array, time: Array) -> Array:
        seen = {
            "image": jnp.concatenate([z, z]),
            "time": jnp.full(2 * count, time),
            "digit": jnp.concatenate([digits, jnp.full_like(digits, NONE)]),
        }
        told, untold = jnp.split(dl.forward(model, {})(params, seen), 2)
        return (1 + guidance) * told - guidance * untold

    def one(z: Array, index: Array) -> tuple[Array, None]:
        time = 1 - index / steps
        alpha, sigma = signal_and_noise(time)
        image = jnp.clip(alpha * z - sigma * velocity(z, time), -1, 1)
        noise = jax.random.normal(jax.random.fold_in(key, index), z.shape)
        return earlier(z, image, noise, time, time - 1 / steps), None

    first_key = jax.random.fold_in(key, steps)
    z = jax.random.normal(first_key, (count, *SHAPE))
    z, _ = lax.scan(one, z, jnp.arange(steps, dtype=jnp.int32))
    return (z + 1) / 2


def earlier(z: Array, image: Array, noise: Array, time: Array, before: Array) -> Array:
    """A sample of q(z_s | z_t, x), s before t (Ho, Jain and Abbeel, 2020, equations 6 and 7)."""
    alpha, sigma = signal_and_noise(time)
    alpha_before, sigma_before = signal_and_noise(jnp.maximum(before, 0))
    step = alpha / alpha_before
    added = sigma**2 - step**2 * sigma_before**2
    mean = (step * sigma_before**2 * z + alpha_before * added * image) / sigma**2
    deviation = jnp.sqrt(jnp.maximum(added, 0)) * sigma_before / sigma
    return mean + deviation * noise


def main(config: Config) -> dict[str, Any]:
    train, test = data.mnist()
    if config.quick:
        train, test = first(512, train), first(500, test)
        quick = {"epochs": 1, "classifier_epochs": 1, "steps": 10, "samples": 20}
        config = dataclasses.replace(config, **quick)
    judge = gan.Config(seed=config.seed, classifier_epochs=config.classifier_epochs)
    classifier = gan.learn_digits(train, test, judge)
    trained = learn(train, test, config)
    assert trained.average is not None

    features = classifier.features(train[0])
    real = classifier.features(test[0][: config.samples])
    asked = jnp.arange(config.samples, dtype=jnp.int32) % 10
    key = jax.random.key(config.seed)
    figures: dict[str, Any] = {
        "classifier_accuracy": classifier.accuracy,
        "test_images_distance": gan.frechet_distance(features, real),
        "seconds": sum(trained.history["seconds"]),
        "history": trained.history,
    }
    rows: list[list[Any]] = [
        ["test images", None, classifier.accuracy, figures["test_images_distance"]]
    ]
    for name, guidance in (("unguided_", 0.0), ("", config.guidance)):
        images = np.asarray(
            sampled(MODEL, trained.average, key, asked, jnp.float32(guidance), config.steps)
        )
        right = classifier.digits(images) == np.asarray(asked)
        distance = gan.frechet_distance(features, classifier.features(images))
        figures |= {
            f"{name}recognised": right.mean(),
            f"{name}recognised_by_digit": right.reshape(-1, 10).mean(axis=0),
            f"{name}distance": distance,
        }
        rows.append(["samples", guidance, right.mean(), distance])
        pictures.save(by_digit(images), config.out, f"{name}samples")
    show_table(
        f"Samples of digits asked for, judged by a classifier of {classifier.accuracy:.2%}",
        ["images", "guidance", "recognised", "Fréchet distance"],
        rows,
    )
    pictures.save(curves(trained), config.out, "learning_curves")
    write_result("diffusion_mnist", config, figures, GOALS)
    return figures


def learn(train: Any, test: Any, config: Config) -> dl.Run:
    """Trains the network, and a moving average of it."""
    steps = config.epochs * -(-len(train[0]) // config.batch_size)
    return dl.train(
        Denoising(MODEL),
        train,
        optimizer=optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps)),
        average=0.999,
        clip_norm=1.0,
        epochs=config.epochs,
        batch_size=config.batch_size,
        validation=test,
        seed=config.seed,
    )


def by_digit(images: Float[np.ndarray, "samples 28 28 1"], columns: int = 16) -> Figure:
    """The first samples of each digit, a row for each."""
    grid = images[..., 0].reshape(-1, 10, 28, 28).swapaxes(0, 1)[:, :columns]
    return pictures.images(grid, [str(digit) for digit in range(10)])


def curves(trained: dl.Run) -> Figure:
    """The loss over the epochs, that of test images of the averaged parameters."""
    figure, (axis,) = pictures.panels(1)
    epochs = range(1, len(trained.history["loss"]) + 1)
    axis.plot(epochs, trained.history["loss"], "--", label="training")
    axis.plot(epochs, trained.history["validation_loss"], label="test, averaged parameters")
    axis.set(ylabel="squared error of v", yscale="log")
    pictures.count_epochs(axis)
    axis.legend(fontsize="small")
    return figure


if __name__ == "__main__":
    run(main, Config, __doc__)
