"""How tests compile."""

QUICK: dict[str, bool | int] = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Options of `jax.jit` for a program that is run once: compiled in a third of the time."""
