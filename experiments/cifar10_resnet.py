"""What do normalisation, residual blocks, augmentation and a schedule add on CIFAR-10, in the time
of the plain network?

Three stages of 24, 48 and 96 channels. Each halves the image (convolution, maximum pooling, batch
normalisation, relu) and adds one residual block of two convolutions; the mean over space is read by
one dense layer. That is 14 million multiplications an image, so that ten epochs fit into a quarter
of an hour on two CPU cores. Each image is mirrored or not and moved by up to four pixels; labels
are smoothed by 0.1; the step size of Nesterov's momentum rises over a quarter of the steps and
falls to zero over the rest (Smith, 2018); kernels decay.

    python -m experiments.cifar10_resnet             # about 10 minutes on two cores

Data: 50,000 + 10,000 photographs of 32×32 pixels in ten classes (Krizhevsky, 2009), downloaded
once.
Source: He et al., 2016; the shape of the stages is Page's, *How to train your ResNet*, 2018.
Expect: test accuracy at least 0.80, ten points above `cifar10_cnn`, within 20 minutes.
"""

import dataclasses
import functools
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import optax

import jaxdl as dl
from experiments import pictures
from experiments.reporting import Goal, first, run, show_table, write_result
from jaxdl import data, losses, metrics, models
from jaxdl.data import augment
from jaxdl.debugging.summary import summary

GOALS = (Goal("test_accuracy", 0.80), Goal("minutes", 20.0, "at most"))


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Args:
        seed: of the weights, the order of examples and the augmentation.
        epochs: over which the step size rises and falls.
        features: the channels of each stage.
        blocks: residual blocks a stage.
        batch_size: examples a step.
        learning_rate: at its peak.
        weight_decay: of the kernels.
        label_smoothing: the share of each label that is spread over all classes.
        out: where the results go.
        quick: two epochs of a thinner network on 2,000 images.
    """

    seed: int = 0
    epochs: int = 10
    features: tuple[int, ...] = (24, 48, 96)
    blocks: int = 1
    batch_size: int = 125
    learning_rate: float = 0.2
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    out: Path = Path("runs/cifar10_resnet")
    quick: bool = False


def flip_and_crop(
    key: jax.Array, images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mirrors each image or not, and moves it by up to four pixels."""
    flip_key, crop_key = jax.random.split(key)
    return augment.crop(crop_key, augment.flip(flip_key, images), padding=4), labels


def one_cycle(config: Config, steps: int) -> optax.GradientTransformation:
    """Nesterov's momentum with one cycle of the step size, and weight decay of the kernels."""
    schedule = optax.cosine_onecycle_schedule(steps, config.learning_rate, pct_start=0.25)
    return optax.chain(
        optax.add_decayed_weights(
            config.weight_decay, mask=functools.partial(dl.tree.map_named, is_kernel)
        ),
        optax.sgd(schedule, momentum=0.9, nesterov=True),
    )


def is_kernel(name: str, leaf: Any) -> bool:
    del leaf
    return name.endswith("kernel")


def main(config: Config) -> dict[str, Any]:
    began = time.perf_counter()
    train, test = data.cifar10()
    features, epochs = config.features, config.epochs
    if config.quick:
        train, test = first(2000, train), first(1000, test)
        features, epochs = tuple(width // 3 for width in features), min(epochs, 2)
    model = models.resnet(*features, blocks=config.blocks)
    whole = summary(model, train[0][:1], show=not config.quick)
    trained = dl.fit(
        model,
        train,
        loss=functools.partial(
            losses.softmax_cross_entropy, label_smoothing=config.label_smoothing
        ),
        optimizer=one_cycle(config, epochs * -(-len(train[1]) // config.batch_size)),
        epochs=epochs,
        batch_size=config.batch_size,
        augment=flip_and_crop,
        metrics={"accuracy": metrics.accuracy},
        validation=test,
        seed=config.seed,
    )
    tested = {"accuracy": metrics.accuracy, "confusion": metrics.ConfusionMatrix(10)}
    measured = dl.evaluate(model, trained.params, trained.state, test, metrics=tested)

    figures = {
        "test_accuracy": measured["accuracy"],
        "minutes": (time.perf_counter() - began) / 60,
        "seconds_an_epoch": statistics.median(trained.history["seconds"]),
        "compile_seconds": trained.compile_seconds,
        "parameters": whole.parameters,
        "flops_an_image": whole.flops,
        "confusion_matrix": measured["confusion"],
        "history": trained.history,
    }
    show_table(
        "A residual network on CIFAR-10",
        [
            "test accuracy",
            "epochs",
            "s an epoch",
            "s to step 1",
            "minutes in all",
            "parameters",
        ],
        [
            [
                f"{figures['test_accuracy']:.4f}",
                epochs,
                f"{figures['seconds_an_epoch']:.1f}",
                f"{figures['compile_seconds']:.1f}",
                f"{figures['minutes']:.1f}",
                f"{figures['parameters']:,}",
            ]
        ],
        "All in all: reading data, compiling, training and a test after each epoch.",
    )
    draw(trained.history, config)
    pictures.save(
        pictures.confusion(measured["confusion"], data.CIFAR10_CLASSES),
        config.out,
        "confusion_matrix",
    )
    write_result("cifar10_resnet", config, figures, GOALS)
    return figures


def draw(history: dict[str, list[float]], config: Config) -> None:
    figure, axes = pictures.panels(3)
    epochs = range(1, len(history["loss"]) + 1)
    for axis, name, label in zip(
        axes, ("loss", "accuracy"), ("smoothed cross-entropy, nats", "accuracy"), strict=False
    ):
        axis.plot(epochs, history[name], "--", label="training, augmented")
        axis.plot(epochs, history[f"validation_{name}"], "-o", markersize=3, label="test")
        axis.set_ylabel(label)
        axis.legend()
    axes[2].plot(epochs, history["learning_rate"], "-o", markersize=3, color="C2")
    axes[2].set_ylabel("step size at the end of the epoch")
    for axis in axes:
        pictures.count_epochs(axis)
    pictures.save(figure, config.out, "learning_curves")


if __name__ == "__main__":
    run(main, Config, __doc__)
