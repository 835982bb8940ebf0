"""What this machine's matrix product reaches in a precision, by `jnp.dot`: `python -m
benchmarks.matrix_product float32 1`.
"""

import sys
import time

import jax
import jax.numpy as jnp

from benchmarks.processes import Answer, serve


def main() -> None:
    """Answers `round` with what so many seconds of products reached; 1024³ on a CPU, 8192³ on an
    accelerator.
    """
    precision, seconds = sys.argv[1], float(sys.argv[2])
    size = 1024 if jax.default_backend() == "cpu" else 8192
    left, right = jax.random.normal(jax.random.key(0), (2, size, size)).astype(precision)
    product = jax.jit(jnp.dot)
    product(left, right).block_until_ready()

    def round() -> Answer:
        count, passed, start = 0, 0.0, time.perf_counter()
        while passed < seconds or not count:
            product(left, right).block_until_ready()
            count, passed = count + 1, time.perf_counter() - start
        return {"flops_per_second": 2 * size**3 * count / passed}

    serve({"round": round})


if __name__ == "__main__":
    main()
