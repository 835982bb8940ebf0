"""The data that every peer is given, made from a seed, and the loss of what a peer predicts for
it.
"""

import numpy as np

from benchmarks.networks import Network


def examples(network: Network, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and what belongs to each: uint8 images with int32 labels, float32 sequences with int32
    labels, float32 features with 0.0 and 1.0 as labels, int32 tokens with those that follow, or
    uint8 images with the float32 codes of fakes.

    Each class has a pattern of its own under the noise, so that training is neither hopeless nor
    done at once.
    """
    generator = np.random.default_rng(seed)
    if network.discriminator:
        images = rings(generator, count, round(network.outputs**0.5))
        return images, generator.normal(size=(count, *network.input_shape)).astype(np.float32)
    if network.reads_tokens:
        return text(generator, count, network.input_shape[0], network.outputs)
    if network.binary:
        features = generator.normal(size=(count, *network.input_shape)).astype(np.float32)
        return features, (features[:, 0] + features[:, 1] > 1).astype(np.float32)
    labels = generator.integers(0, network.outputs, count, dtype=np.int32)
    if len(network.input_shape) == 2:
        tunes = generator.normal(size=(network.outputs, *network.input_shape))
        return (tunes[labels] + generator.normal(size=(count, *network.input_shape))).astype(
            np.float32
        ), labels
    patterns = generator.integers(
        0, 193, (network.outputs, *network.input_shape), dtype=np.uint8
    )
    images = generator.integers(0, 64, (count, *network.input_shape), dtype=np.uint8)
    for label, pattern in enumerate(patterns):
        images[labels == label] += pattern
    return images, labels


def text(
    generator: np.random.Generator, count: int, context: int, vocabulary: int
) -> tuple[np.ndarray, np.ndarray]:
    """Windows of a text whose next token is one of four, and the same windows one token on: [count,
    context] each.
    """
    tokens = (
        np.cumsum(generator.integers(0, 4, count * (context + 1)), dtype=np.int64) % vocabulary
    )
    rows = tokens.reshape(count, context + 1).astype(np.int32)
    return rows[:, :-1].copy(), rows[:, 1:].copy()


def rings(generator: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Rings of different widths, flattened: [count, size * size] uint8."""
    places = np.arange(size) - (size - 1) / 2
    distance = np.hypot(places[:, None], places[None]).reshape(1, -1)
    radii = generator.uniform(size / 7, size / 2.4, (count, 1))
    return (255 * np.exp(-((distance - radii) ** 2) / 4)).astype(np.uint8)


def as_floats(inputs: np.ndarray) -> np.ndarray:
    """uint8 images as float32 in [0, 1], without a second float copy in between; everything else as
    it is.
    """
    if inputs.dtype != np.uint8:
        return inputs
    return np.multiply(inputs, np.float32(1 / 255), dtype=np.float32)


def as_signed(images: np.ndarray) -> np.ndarray:
    """uint8 images as float32 in [-1, 1]."""
    return 2 * as_floats(images) - 1


def mean_loss(network: Network, outputs: np.ndarray, labels: np.ndarray) -> float:
    """The mean loss over what `Peer.predict` gave for all examples.

    Of a language model the last token of each window counts; of an adversarial pair, whose outputs
    are the scores of an image and of a fake, the discriminator's loss and the generator's together.
    """
    outputs = np.asarray(outputs, np.float64)
    if network.discriminator:
        real, fake = outputs.T
        return float((softplus(-real) + softplus(fake) + softplus(-fake)).mean())
    if network.binary:
        return float((softplus(outputs[:, 0]) - labels * outputs[:, 0]).mean())
    targets = labels[:, -1] if network.reads_tokens else labels
    largest = outputs.max(1, keepdims=True)
    logarithms = largest[:, 0] + np.log(np.exp(outputs - largest).sum(1))
    return float((logarithms - outputs[np.arange(len(outputs)), targets]).mean())


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)
