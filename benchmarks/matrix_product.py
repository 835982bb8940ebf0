"""What this machine's matrix product reaches: float32, 1024 x 1024 x 1024, by `jnp.dot`. Run as a worker."""

import sys
import time

import jax
import jax.numpy as jnp

from benchmarks.processes import Answer, serve

SIZE = 1024


def main() -> None:
    """Answers `round` with what so many seconds of products reached."""
    seconds = float(sys.argv[1])
    left, right = jax.random.normal(jax.random.key(0), (2, SIZE, SIZE))
    product = jax.jit(jnp.dot)
    product(left, right).block_until_ready()

    def round() -> Answer:
        count, passed, start = 0, 0.0, time.perf_counter()
        while passed < seconds or not count:
            product(left, right).block_until_ready()
            count, passed = count + 1, time.perf_counter() - start
        return {"flops_per_second": 2 * SIZE**3 * count / passed}

    serve({"round": round})


if __name__ == "__main__":
    main()
