"""The strict runtime of every test: annotations are checked, and nothing is promoted, broadcast or warned about in silence."""

import gc
import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import jaxtyping
import pytest

os.environ.setdefault(
    "JAX_PLATFORMS", "cpu"
)  # an accelerator's own rounding is not what these tests are about
os.environ.setdefault("MPLBACKEND", "Agg")
SOONER = (
    "--xla_cpu_use_fusion_emitters=false"  # compiles many small programs in a third less time
)
if metadata.version("jaxlib").startswith("0.10.") and SOONER not in os.environ.get(
    "XLA_FLAGS", ""
):
    # XLA ends a process that gives it a flag which it does not know, as later versions do.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {SOONER}".strip()
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"  # an int is a float, as Python has it
jaxtyping.install_import_hook("jaxdl", CHECKER)  # before jaxdl is imported for the first time

import hypothesis  # noqa: E402
import jax  # noqa: E402

ROOT = Path(__file__).parent.parent

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update(
        "jax_compilation_cache_dir", str(ROOT / ".jax_cache")
    )  # shared by workers, and by one run with the next
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
hypothesis.settings.register_profile(
    "strict", deadline=None, derandomize=True, database=None, print_blob=False
)
hypothesis.settings.load_profile("strict")


gc.set_threshold(
    100_000, 20, 100
)  # what JAX keeps of thousands of programs would be searched again and again


def pytest_configure(config: pytest.Config) -> None:
    # Two workers may write one entry of the cache, and a run may be interrupted in the middle of one: JAX compiles anew.
    config.addinivalue_line(
        "filterwarnings", "ignore:Error (reading|writing) persistent compilation cache entry"
    )
    # A test that is asked for by its name runs, slow or not.
    if config.option.markexpr == "not slow" and all("::" in name for name in config.args):
        config.option.markexpr = ""


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what is marked slow
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the cases of sampled tests that are slow."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled"):
            cases.setdefault(item.nodeid.split("[")[0], []).append(item)
    for same_test in cases.values():
        marker = same_test[0].get_closest_marker("sampled")
        assert marker is not None
        kept = quick_cases(len(same_test), *marker.args)
        for number, item in enumerate(same_test):
            if number not in kept:
                item.add_marker(pytest.mark.slow)


def quick_cases(count: int, n: int = 1) -> set[int]:
    """Which of `count` cases are quick: n of them, the last and others at even distances."""
    n = min(n, count)
    return {count * number // n - 1 for number in range(1, n + 1)}


@pytest.fixture(autouse=True, scope="module")
def leaves_no_programs() -> Iterator[None]:
    """Forgets the programs of a module at its end: thousands of them take gigabytes."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def quickly_compiled() -> Iterator[None]:
    """Leaves out XLA's optimisations, for many small programs that are run once; a third to a half of the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Switches the checks of annotations off, for what a user's run does with an argument of the wrong type."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
