"""Chapter 2: a convolution, a maximum over windows, and probabilities in the end.

Each function below has two parts, as in chapter 1: what it computes, and, given the derivative of
the loss by what it computed, the derivatives by what it was given. Only the functions are new; the
rule that joins them is the same.

    forward    x ──patches──▶ p ──conv──▶ z ──relu──▶ h ──max──▶ m ──dense──▶ a ──softmax,
    cross-entropy──▶ L

A picture is an array [height, width, channels], and a batch [batch, height, width, channels], the
order that jaxdl has.

Source: LeCun et al., *Backpropagation Applied to Handwritten Zip Code Recognition* (1989).
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from experiments.by_hand.sigmoid_network import Params, dense, dense_by_input, dense_by_params


def patches(
    x: Float[np.ndarray, "batch height width channels"], size: int
) -> Float[np.ndarray, "batch rows columns patch"]:
    """The square of pixels under each position of a window, laid out as one row of numbers.

    p[n, i, j, (u, v, c)] = x[n, i + u, j + v, c] for u, v in 0 … size − 1, wherever the window lies
    inside the picture.
    """
    rows, columns = x.shape[1] - size + 1, x.shape[2] - size + 1
    return np.concatenate(
        [x[:, u : u + rows, v : v + columns] for u in range(size) for v in range(size)], axis=-1
    )


def patches_backward(
    by_p: Float[np.ndarray, "batch rows columns patch"], size: int
) -> Float[np.ndarray, "batch height width channels"]:
    """∂L/∂x: a pixel lies in up to size² patches, acts on L through each of them, and gets the sum
    of what they hand back.

    ∂L/∂x[n, i, j, c] = Σ_{u, v} ∂L/∂p[n, i − u, j − v, (u, v, c)]
    """
    batch, rows, columns, length = by_p.shape
    channels = length // size**2
    by_x = np.zeros((batch, rows + size - 1, columns + size - 1, channels), by_p.dtype)
    for place in range(size**2):
        u, v = divmod(place, size)
        by_x[:, u : u + rows, v : v + columns] += by_p[
            ..., place * channels : (place + 1) * channels
        ]
    return by_x


def conv(
    p: Float[np.ndarray, "batch rows columns patch"], params: dict[str, Any]
) -> Float[np.ndarray, "batch rows columns features"]:
    """z[n, i, j, o] = Σ_{u, v, c} x[n, i + u, j + v, c] W[u, v, c, o] + b[o].

    A small dense layer slides over the picture: the same weights look at each patch of it, so that
    a stroke is found wherever it is. It is `dense` on all patches at once. (Mathematics would turn
    W round first; deep learning does not.)

    Args:
        p: the `patches` of x.
        params: `kernel` W [size, size, channels, features] and `bias` b [features].
    """
    return dense(p.reshape(-1, p.shape[-1]), flat(params)).reshape(*p.shape[:-1], -1)


def conv_by_params(
    p: Float[np.ndarray, "batch rows columns patch"],
    params: dict[str, Any],
    by_z: Float[np.ndarray, "batch rows columns features"],
) -> dict[str, Float[np.ndarray, "..."]]:
    """∂L/∂W and ∂L/∂b: those of `dense` on patches. A weight acts at every position, so its effects
    at all of them add up.

    ∂L/∂W[u, v, c, o] = Σ_{n, i, j} x[n, i + u, j + v, c] ∂L/∂z[n, i, j, o],        ∂L/∂b[o] = Σ_{n,
    i, j} ∂L/∂z[n, i, j, o]
    """
    by_params = dense_by_params(p.reshape(-1, p.shape[-1]), by_z.reshape(-1, by_z.shape[-1]))
    return by_params | {"kernel": by_params["kernel"].reshape(params["kernel"].shape)}


def conv_by_input(
    params: dict[str, Any], by_z: Float[np.ndarray, "batch rows columns features"]
) -> Float[np.ndarray, "batch height width channels"]:
    """∂L/∂x: that of `dense` by the patches, then that of the patches by the picture."""
    by_p = dense_by_input(flat(params), by_z.reshape(-1, by_z.shape[-1]))
    return patches_backward(by_p.reshape(*by_z.shape[:-1], -1), len(params["kernel"]))


def flat(params: dict[str, Any]) -> dict[str, Any]:
    """A convolution's weights as those of a dense layer on patches: [size, size, channels,
    features] to [patch, features].
    """
    return params | {"kernel": params["kernel"].reshape(-1, params["kernel"].shape[-1])}


def relu(z: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """h = max(z, 0)."""
    return np.maximum(z, 0)


def relu_backward(
    z: Float[np.ndarray, "*shape"], by_h: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """∂L/∂z = ∂L/∂h where z > 0, and 0 elsewhere: a gate. There is no derivative at z = 0; 0 is the
    usual choice.
    """
    return by_h * (z > 0)


def max_pool(
    h: Float[np.ndarray, "batch height width channels"],
) -> tuple[
    Float[np.ndarray, "batch rows columns channels"],
    Bool[np.ndarray, "batch height width channels"],
]:
    """The largest of each 2 × 2 window, and where it was.

    Equal numbers happen: two patches of blank paper give the same. The first of them, in reading
    order, is taken then; the maximum has no derivative there, and jaxdl makes the same choice.

    Returns:
        `(m, chosen)`: the maxima, and for each number of h whether it is the one its window passed
        on.

    >>> m, chosen = max_pool(np.array([[1.0, 7.0], [7.0, 3.0]])[None, :, :, None])
    >>> m.squeeze().item(), chosen.squeeze().astype(int).tolist()
    (7.0, [[0, 1], [0, 0]])
    """
    windows = in_windows(h)
    first = windows.argmax(-1, keepdims=True)
    chosen = np.arange(4) == first
    return np.take_along_axis(windows, first, -1)[..., 0], out_of_windows(chosen)


def max_pool_backward(
    chosen: Bool[np.ndarray, "batch height width channels"],
    by_m: Float[np.ndarray, "batch rows columns channels"],
) -> Float[np.ndarray, "batch height width channels"]:
    """∂L/∂h: the number that was chosen gets all of its window's ∂L/∂m; the other three changed
    nothing, and get 0.
    """
    return chosen * by_m.repeat(2, axis=1).repeat(2, axis=2)


def in_windows(h: np.ndarray) -> np.ndarray:
    """[batch, height, width, channels] to [batch, rows, columns, channels, 4], the four numbers of
    a window side by side.
    """
    batch, height, width, channels = h.shape
    windows = h.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(
        0, 1, 3, 5, 2, 4
    )
    return windows.reshape(batch, height // 2, width // 2, channels, 4)


def out_of_windows(windows: np.ndarray) -> np.ndarray:
    """The inverse of `in_windows`."""
    batch, rows, columns, channels, _ = windows.shape
    h = windows.reshape(batch, rows, columns, channels, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    return h.reshape(batch, 2 * rows, 2 * columns, channels)


def softmax_cross_entropy(
    a: Float[np.ndarray, "batch classes"], labels: Int[np.ndarray, " batch"]
) -> tuple[Any, Float[np.ndarray, "batch classes"]]:
    """Softmax makes probabilities of any numbers, p = eᵃ / Σ eᵃ; the loss is how surprised they are
    by the truth.

        L = −1/N Σₙ log p[n, label of n],        ∂L/∂a[n, k] = (p[n, k] − [k is the label of n]) / N

    The derivative is again an error: what was said, less what is true. From log p[k] = a[k] − log
    Σⱼ eᵃ⁽ʲ⁾ it takes one line: the first term gives the bracket, and the derivative of the second
    by a[k] is p[k].

    Args:
        a: one number a class, of any size.
        labels: the true class of each example.

    Returns:
        `(L, ∂L/∂a)`, L in nats, as with the natural logarithm.
    """
    a = a - a.max(
        1, keepdims=True
    )  # changes no probability, and keeps e to the a from overflowing
    log_p = a - np.log(np.exp(a).sum(1, keepdims=True))
    truth = np.arange(a.shape[1]) == labels[:, None]
    return -log_p[truth].mean(), (np.exp(log_p) - truth) / len(a)


def outputs(
    params: Params, x: Float[np.ndarray, "batch height width 1"]
) -> Float[np.ndarray, "batch classes"]:
    """The forward pass alone, for when nothing is to be learnt."""
    z = conv(patches(x, len(params["conv_0"]["kernel"])), params["conv_0"])
    m, _ = max_pool(relu(z))
    return dense(m.reshape(len(m), -1), params["dense_0"])


def gradients(
    params: Params,
    x: Float[np.ndarray, "batch height width 1"],
    labels: Int[np.ndarray, " batch"],
    *,
    pixels: bool = False,
) -> tuple[Any, Params, Float[np.ndarray, "batch height width 1"] | None]:
    """The loss and its derivatives: down the network, and up again line by line.

    Args:
        params: of `conv_0` and `dense_0`.
        x: pictures.
        labels: which digit each shows.
        pixels: whether the derivatives by x are wanted too; learning has no use for them.

    Returns:
        `(L, ∂L/∂params, ∂L/∂x or None)`; the second is a dict just like `params`.
    """
    p = patches(x, len(params["conv_0"]["kernel"]))
    z = conv(p, params["conv_0"])
    h = relu(z)
    m, chosen = max_pool(h)
    row = m.reshape(len(m), -1)
    a = dense(row, params["dense_0"])
    loss, by_a = softmax_cross_entropy(a, labels)

    by_dense_0 = dense_by_params(row, by_a)
    by_m = dense_by_input(params["dense_0"], by_a).reshape(m.shape)
    by_h = max_pool_backward(chosen, by_m)
    by_z = relu_backward(z, by_h)
    by_conv_0 = conv_by_params(p, params["conv_0"], by_z)
    by_x = conv_by_input(params["conv_0"], by_z) if pixels else None
    return loss, {"conv_0": by_conv_0, "dense_0": by_dense_0}, by_x
