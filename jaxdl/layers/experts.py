"""A mixture of experts: layers of which each token uses a few, as a router chooses."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl import ops
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError, describe, located
from jaxdl.core.keys import fold_in, fold_in_name
from jaxdl.core.layer import LOSSES, Cache, Layer, Params, Span, State
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.core.number import is_number
from jaxdl.core.padded import Padded
from jaxdl.layers import arguments, inputs, parameters
from jaxdl.layers.dense import lecun_normal
from jaxdl.layers.initializers import Initializer
from jaxdl.ops.floating import widest
from jaxdl.ops.sharding import gathered, shard_batch_like


@dataclasses.dataclass(frozen=True)
class MixtureOfExperts(Layer):
    """y = Σ_e g_e f_e(x) over the k experts that a router chooses for each token: [batch, ...,
    features] to [batch, ..., outputs], where a token is all but the last axis.

        p = softmax(x W),  g = p_e for k = 1,  g_e = p_e / Σ p over the chosen ones for more

    With a gate of 1 for k = 1 the router would learn nothing from the loss. Without a capacity
    every expert computes every token, which is exact and costs as much as all of them. With one,
    an expert computes in training at most ⌈capacity_factor · k · tokens / experts⌉ tokens of a
    batch (of a device's part of it, on several): all first choices before the second ones, in the
    order of the batch. Later choices are dropped, and add nothing to y, so that a residual around
    the layer passes such tokens on. Evaluation drops none, and computes each example alone.

    Steps of `Padded` sequences after the end, and examples that the mode's mask leaves out, go to
    no expert and count in no loss; outputs of such steps are zeros.

    In training two losses are added (`balance` and `router_z` in the history):

        balance · E Σ_e f_e P_e,  z_loss · mean((log Σ_e exp (x W)_e)²)

    with f_e the fraction of all choices that are e, and P_e the mean of p_e. The former is
    `balance` itself if experts are used evenly. The router computes in at least
    float32. Sources: Fedus et al., *Switch Transformers* (2022), sections 2.1 and 2.2, for k = 1;
    Lepikhin et al., *GShard* (2021), section 2.2, for more; Zoph et al., *ST-MoE* (2022),
    equation 5, for the z-loss.

    Parameters: `router`, with `kernel` W [features, experts], in float32, and `experts`, those of
    the expert with a first axis [experts], drawn one by one. State: `experts`, likewise.

    Args:
        expert: f, a layer of [tokens, features]; its statistics over the batch are those of its own
            tokens.
        experts: E, how many there are.
        top_k: k, how many of them compute a token.
        capacity_factor: None for no capacity, or a number, such as 1.25.
        balance: the weight of the load-balancing loss.
        z_loss: the weight of the z-loss, such as 0.001.
        jitter: in training the router's input is multiplied by noise, uniform in [1 − jitter,
            1 + jitter] (Fedus et al., appendix C).
        router_init: of W, from `dl.initializers`.

    Raises:
        LayerError: an argument is invalid, an input has another number of features than at init, or
            the expert does not map [tokens, features] to [tokens, outputs], or adds losses itself.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> layer = dl.MixtureOfExperts(dl.Dense(3), experts=4, top_k=2)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((2, 5, 6)))
    >>> params["router"]["kernel"].shape, params["experts"]["kernel"].shape
    ((6, 4), (4, 6, 3))
    >>> y, state = layer.apply(params, state, jnp.ones((2, 5, 6)), dl.Train(jax.random.key(0)))
    >>> y.shape, list(state["losses"])
    ((2, 5, 3), ['balance'])
    """

    expert: Layer
    experts: int = 8
    top_k: int = 2
    _: dataclasses.KW_ONLY
    capacity_factor: float | None = None
    balance: float | Array = 0.01
    z_loss: float | Array = 0.0
    jitter: float | Array = 0.0
    router_init: Initializer = lecun_normal

    def __post_init__(self) -> None:
        name = "MixtureOfExperts"
        if not isinstance(self.expert, Layer):
            raise LayerError(
                name,
                f"expert is a layer with parameters, such as Sequential(Dense(64), relu, Dense(16))"
                f", got {describe(self.expert)}.",
            )
        arguments.check_positive(name, experts=self.experts, top_k=self.top_k)
        if self.top_k > self.experts:
            raise LayerError(
                name, f"top_k is at most the {self.experts} experts, got {self.top_k}."
            )
        factor = self.capacity_factor
        if factor is not None and not (is_number(factor) and factor > 0):
            raise LayerError(
                name, f"capacity_factor is None or a number above 0, got {factor!r}."
            )
        arguments.check_non_negative(name, balance=self.balance, z_loss=self.z_loss)
        arguments.check_probability(name, jitter=self.jitter)
        arguments.check_fields(self)

    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        name = "MixtureOfExperts"
        features = inputs.features(name, x)
        inputs.check_floating(name, x)
        shape = (features, self.experts)
        router_key = fold_in_name(key, "router")
        kernel = parameters.draw(
            name, "router_init", self.router_init, router_key, shape, jnp.float32
        )
        expert_key = fold_in_name(key, "experts")
        tokens = jax.ShapeDtypeStruct((math.prod(x.shape[:-1]), features), x.dtype)
        with located("experts"):
            drawn = [
                self.expert.init(fold_in(expert_key, index), tokens)
                for index in range(self.experts)
            ]
        params, state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)
        return {"router": {"kernel": kernel}, **_under_experts(params)}, _under_experts(state)

    def apply(
        self,
        params: Params,
        state: State,
        x: PyTree,
        mode: Mode = Eval(),
    ) -> tuple[PyTree, State]:
        values, mask = _tokens_that_count(x, mode)
        tokens = ops.linear.rows(values)
        kernel = self._kernel(params, values)
        logits = ops.routing.logits(self._with_jitter(tokens, mode), kernel)
        probabilities = jax.nn.softmax(logits)
        routes = ops.routing.top_k(probabilities, self.top_k, mask)
        trees = (params.get("experts", {}), state.get("experts", {}))
        if self.capacity_factor is None or not isinstance(mode, Train):
            y, new = self._compute_all(trees, tokens, routes, mask, mode)
        else:
            y, new = self._compute_buffers(trees, tokens, routes, mask, mode)
        y = y.reshape(*values.shape[:-1], y.shape[-1])
        outputs = Padded(y, x.lengths) if isinstance(x, Padded) else y
        if not isinstance(mode, Train):
            return outputs, state
        losses = self._losses(logits, probabilities, routes, mask, mode)
        return outputs, {**_under_experts(new), **({LOSSES: losses} if losses else {})}

    def decode(
        self,
        params: Params,
        state: State,
        cache: Cache,
        x: PyTree,
        span: Span,
    ) -> tuple[PyTree, Cache]:
        """Applies the layer to these steps; nothing is cached."""
        del span
        return self.apply(params, state, x)[0], cache

    def _kernel(self, params: Params, x: Array) -> Array:
        router = parameters.lookup("MixtureOfExperts", params, "router")
        parameters.check_shapes("MixtureOfExperts", router, kernel=(None, self.experts))
        inputs.check_features("MixtureOfExperts", x, router["kernel"].shape[0])
        return router["kernel"]

    def _with_jitter(self, tokens: Array, mode: Mode) -> Array:
        if not isinstance(mode, Train) or arguments.is_zero(self.jitter):
            return tokens
        wide = widest(tokens.dtype)
        key = mode.for_part("jitter").key
        noise = jax.random.uniform(key, tokens.shape, wide, -1.0, 1.0)
        return tokens.astype(wide) * (1 + self.jitter * noise)

    def _compute_all(
        self,
        trees: tuple[Params, State],
        tokens: Array,
        routes: ops.routing.Routes,
        mask: Array | None,
        mode: Mode,
    ) -> tuple[Array, State]:
        """y of all experts for all tokens, and the next state of the experts."""
        is_of_expert = ops.routing.one_hot(routes.chosen, self.experts, mask).any(1).T
        y, state = self._compute_each(trees, tokens, None, is_of_expert, mode)
        return ops.routing.combine_all(y, routes), state

    def _compute_buffers(
        self,
        trees: tuple[Params, State],
        tokens: Array,
        routes: ops.routing.Routes,
        mask: Array | None,
        mode: Mode,
    ) -> tuple[Array, State]:
        """y of each expert for the tokens in its buffer, and the next state of the experts."""
        assert self.capacity_factor is not None
        chosen = gathered(routes.chosen)
        places = ops.routing.buffers(chosen, self.experts, self.capacity_factor, mask)
        own = ops.routing.dispatch(gathered(tokens), places)
        is_filled = places.source < len(tokens)
        y, state = self._compute_each(trees, own, 0, is_filled, mode)
        combined = ops.routing.combine(gathered(y), places, gathered(routes.gates))
        return shard_batch_like(tokens, combined), state

    def _compute_each(
        self,
        trees: tuple[Params, State],
        x: Array,
        axis: int | None,
        own: Array,
        mode: Mode,
    ) -> tuple[Array, State]:
        """All experts, each for its tokens along that axis of x, or for the same ones."""

        def compute(
            index: Array, trees: tuple[Params, State], x: Array, own: Array
        ) -> tuple[Array, State]:
            return self._compute(index, trees, x, own, mode)

        indices = jnp.arange(self.experts, dtype=jnp.int32)
        return jax.vmap(compute, (0, 0, axis, 0))(indices, trees, x, own)

    def _compute(
        self,
        index: Array,
        trees: tuple[Params, State],
        x: Array,
        own: Array,
        mode: Mode,
    ) -> tuple[Array, State]:
        """One expert, for tokens of which its own count."""
        params, state = trees
        part = mode.for_part("experts")
        if part.key is not None:
            part = part.fold_in(index)
        if isinstance(part, Train):
            part = part.with_mask(own)
        with located("experts"):
            y, new = self.expert.apply(params, state, x, part)
        if getattr(y, "shape", ())[:-1] != x.shape[:-1]:
            raise LayerError(
                "MixtureOfExperts",
                f"the expert maps [tokens, features] to [tokens, outputs], and gave "
                f"{inputs.describe_shape(y)} for shape {x.shape}.",
            )
        if jax.tree.structure(new) != jax.tree.structure(state):
            raise LayerError(
                "MixtureOfExperts",
                "the expert returned a state of another structure, as of a layer that adds losses "
                "— put such a layer around the mixture.",
            )
        return y, new

    def _losses(
        self,
        logits: Array,
        probabilities: Array,
        routes: ops.routing.Routes,
        mask: Array | None,
        mode: Train,
    ) -> dict[str, Array]:
        """What the router adds to the objective, by name."""
        losses = {}
        if not arguments.is_zero(self.balance):
            uneven = ops.routing.load_balance(probabilities, routes.chosen, mask, mode.across)
            losses["balance"] = self.balance * uneven
        if not arguments.is_zero(self.z_loss):
            losses["router_z"] = self.z_loss * ops.routing.z_loss(logits, mask, mode.across)
        return losses


def _tokens_that_count(x: PyTree, mode: Mode) -> tuple[Array, Array | None]:
    """The values of an input, and a mask [tokens] of those that count; None if all do."""
    name = "MixtureOfExperts"
    steps = x.mask if isinstance(x, Padded) else None
    values = x.with_zero_padding().values if isinstance(x, Padded) else x
    inputs.features(name, values)
    values = inputs.as_computed(name, values)
    examples = mode.mask if isinstance(mode, Train) else None
    mask = inputs.vectors_that_count(name, values, steps, examples)
    return values, None if mask is None else mask.reshape(-1)


def _under_experts(tree: Params) -> Params:
    return {"experts": tree} if tree else {}
