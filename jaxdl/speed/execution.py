"""What was measured of one execution mode, and of a precision."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ExecutionSpeed:
    """How fast one execution mode was. All times are in seconds; None is what is not known.

    Args:
        name: of the execution mode, such as "eager" or "epoch".
        programs: how many were compiled for it; operation by operation, later steps may need more
            than the first.
        cached: how many of these came from the persistent cache.
        trace_seconds: running functions on shapes and writing programs for XLA, for the first step.
        compile_seconds: XLA's work on the programs of the first step.
        first_seconds: from the call to the end of the first step (or call), compiling included.
        rounds: of one step, in each of the rounds, in which all modes were timed in turn.
        repeats: how many steps a round had.
        spread: the interquartile range of the rounds over their median.
        seconds: the median; None where the spread is too wide for it to mean anything, and so is
            all that follows from it.
        examples_a_second: None for the calls of a function.
        flops: floating-point operations of one step, as XLA counts them, with each iteration of
            loops.
        bytes: that the operations of one compiled step read and write.
        flops_a_second: flops / seconds.
        share_of_matrix_product: of the operations a second that the machine's own matrix product
            reaches.
        share_of_bandwidth: of the bytes a second that the machine's memory moves; above 1 where
            caches serve.
        program_bytes: arguments, outputs and temporary memory of the largest of the programs.
        peak_bytes: the most that was held while it warmed up; the report's `peak_of` says of what.
        difference: the largest from the results of the first mode, after the same steps.
    """

    name: str
    programs: int
    cached: int
    trace_seconds: float
    compile_seconds: float
    first_seconds: float
    rounds: tuple[float, ...]
    repeats: int
    spread: float
    seconds: float | None
    examples_a_second: float | None
    flops: float | None
    bytes: float | None
    flops_a_second: float | None
    share_of_matrix_product: float | None
    share_of_bandwidth: float | None
    program_bytes: int | None
    peak_bytes: int | None
    difference: float | None


@dataclasses.dataclass(frozen=True)
class PrecisionCost:
    """What computing in a lower precision changed: the metrics of a model that was trained in it,
    and of one that was trained in float32.

    Args:
        dtype: that the model computed in.
        metrics: the loss and the scalar metrics, by name.
        float32: the same after the same steps in float32.
        difference: the largest between the parameters.
    """

    dtype: str
    metrics: dict[str, float]
    float32: dict[str, float]
    difference: float

    def __str__(self) -> str:
        pairs = ", ".join(
            f"{name} {value:.4g} (float32: {self.float32[name]:.4g})"
            for name, value in self.metrics.items()
        )
        return f"{self.dtype} gives {pairs}; its parameters differ by {self.difference:.1e} at most"
