"""Chapter 1: two layers of sigmoids, and what to change in their weights.

A network is a function f(x) of an input x, with numbers inside it, its parameters. The loss L is
one number that says how far its outputs are from what they should be. To learn is to change each
parameter w a little in the direction in which L falls:

    w  ←  w − rate · ∂L/∂w

The derivative ∂L/∂w says by how much L rises for each unit that w does. It could be had by trying:
raise w by a millionth, compute L again, and do so for every one of thousands of parameters.
**Backpropagation** finds them all for about three times the price of computing L once. It is the
chain rule, read from the end. Here L depends on the outputs o, these on the hidden values h, and
these on the parameters, one simple function after another:

    forward       x ──W,b──▶ z ──σ──▶ h ──V,c──▶ a ──σ──▶ o ──▶ L
    backward   ∂L/∂x ◀── ∂L/∂z ◀── ∂L/∂h ◀── ∂L/∂a ◀── ∂L/∂o ◀── 1

If L depends on z only through h = σ(z), the chain rule says ∂L/∂z = ∂L/∂h · σ′(z). So each
function, given the derivative of L by its *output*, can hand back the derivative of L by its
*inputs*, without knowing what comes before or after it. That is
all there is: the backward pass goes through the same functions in reverse, and needs from the
forward pass the values it met. Written out for the weights W of the first layer, and the squared
error of m numbers (∘ multiplies number by number), it is

    ∂L/∂W = xᵀ ( ( 2/m (o − t) ∘ o ∘ (1 − o) ) Vᵀ ∘ h ∘ (1 − h) )

which nobody would want to do again for twenty layers. The code below never does: it goes one arrow
at a time.

In the code, `by_h` stands for ∂L/∂h, an array of the shape of h. A row of an array is an example of
the batch. W and b are the `kernel` and `bias` of `dense_0`, V and c those of `dense_1`.

Source: Rumelhart, Hinton, Williams, *Learning representations by back-propagating errors* (1986).
"""

from typing import Any

import numpy as np
from jaxtyping import Float

Params = dict[str, dict[str, Any]]
"""Arrays by part and name, as jaxdl has them: `params["dense_0"]["kernel"]`."""


def sigmoid(z: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """σ(z) = 1 / (1 + e⁻ᶻ), which squeezes every number into 0 … 1; written with tanh, which does
    not overflow.
    """
    return 0.5 * (1 + np.tanh(0.5 * z))


def sigmoid_backward(
    h: Float[np.ndarray, "*shape"], by_h: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """∂L/∂z = ∂L/∂h · σ′(z), with σ′(z) = σ(z) (1 − σ(z)) = h (1 − h).

    The slope follows from the values themselves: it is 1/4 at most, and next to nothing where h is
    near 0 or 1.

    Args:
        h: what `sigmoid` returned.
        by_h: ∂L/∂h.
    """
    return by_h * h * (1 - h)


def dense(
    x: Float[np.ndarray, "batch inputs"], params: dict[str, Any]
) -> Float[np.ndarray, "batch outputs"]:
    """y = x W + b: each output is a weighted sum of all inputs, y[n, j] = Σᵢ x[n, i] W[i, j] +
    b[j].
    """
    return x @ params["kernel"] + params["bias"]


def dense_by_params(
    x: Float[np.ndarray, "batch inputs"], by_y: Float[np.ndarray, "batch outputs"]
) -> dict[str, Float[np.ndarray, "..."]]:
    """∂L/∂W and ∂L/∂b of y = x W + b.

    The weight W[i, j] moves y[n, j] by x[n, i], in each example n. Where a number acts on L in
    several ways, the effects add
    up: here over all examples. Over them and for all weights, that is one product of matrices.

        ∂L/∂W[i, j] = Σₙ x[n, i] ∂L/∂y[n, j],        ∂L/∂W = xᵀ · ∂L/∂y
        ∂L/∂b[j]    = Σₙ ∂L/∂y[n, j]

    Args:
        x: what came in.
        by_y: ∂L/∂y.

    Returns:
        `{"kernel": ∂L/∂W, "bias": ∂L/∂b}`.
    """
    return {"kernel": x.T @ by_y, "bias": by_y.sum(0)}


def dense_by_input(
    params: dict[str, Any], by_y: Float[np.ndarray, "batch outputs"]
) -> Float[np.ndarray, "batch inputs"]:
    """∂L/∂x of y = x W + b.

    The input x[n, i] moves each output y[n, j] by W[i, j], and again the effects add up: the errors
    come back through the same weights through which the values went.

        ∂L/∂x[n, i] = Σⱼ ∂L/∂y[n, j] W[i, j],        ∂L/∂x = ∂L/∂y · Wᵀ

    Args:
        params: `kernel` W, and `bias` b, which has no part in it.
        by_y: ∂L/∂y.
    """
    return by_y @ params["kernel"].T


def squared_error(
    outputs: Float[np.ndarray, "batch outputs"], targets: Float[np.ndarray, "batch outputs"]
) -> tuple[Any, Float[np.ndarray, "batch outputs"]]:
    """L = 1/m Σ (o − t)², the mean over all m numbers, and its derivative ∂L/∂o = 2/m (o − t): the
    error itself, scaled.
    """
    error = outputs - targets
    return (error**2).mean(), 2 * error / error.size


def outputs(
    params: Params, x: Float[np.ndarray, "batch pixels"]
) -> Float[np.ndarray, "batch classes"]:
    """The forward pass alone, for when nothing is to be learnt."""
    h = sigmoid(dense(x, params["dense_0"]))
    return sigmoid(dense(h, params["dense_1"]))


def gradients(
    params: Params,
    x: Float[np.ndarray, "batch pixels"],
    targets: Float[np.ndarray, "batch classes"],
    *,
    pixels: bool = False,
) -> tuple[Any, Params, Float[np.ndarray, "batch pixels"] | None]:
    """The loss and its derivatives: down the network, and up again line by line.

    Args:
        params: of `dense_0` and `dense_1`.
        x: pictures, one a row.
        targets: 1 for the digit that is shown, 0 for the other nine.
        pixels: whether the derivatives by x are wanted too; learning has no use for them.

    Returns:
        `(L, ∂L/∂params, ∂L/∂x or None)`; the second is a dict just like `params`.
    """
    z = dense(x, params["dense_0"])
    h = sigmoid(z)
    a = dense(h, params["dense_1"])
    o = sigmoid(a)
    loss, by_o = squared_error(o, targets)

    by_a = sigmoid_backward(o, by_o)
    by_dense_1 = dense_by_params(h, by_a)
    by_h = dense_by_input(params["dense_1"], by_a)
    by_z = sigmoid_backward(h, by_h)
    by_dense_0 = dense_by_params(x, by_z)
    by_x = dense_by_input(params["dense_0"], by_z) if pixels else None
    return loss, {"dense_0": by_dense_0, "dense_1": by_dense_1}, by_x
