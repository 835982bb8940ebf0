"""What an installed wheel does without extras: it has a version and types, fits and predicts."""

from importlib import metadata, resources
from pathlib import Path

import numpy as np

import jaxdl as dl

assert "site-packages" in Path(dl.__file__).parts, f"this is not the wheel: {dl.__file__}"
assert dl.__version__ == metadata.version("jaxdl")
assert resources.files("jaxdl").joinpath("py.typed").is_file()

x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
y = (x[:, 0] > 0).astype(np.int32)
run = dl.fit(
    dl.Dense(2),
    (x, y),
    loss=dl.losses.softmax_cross_entropy,
    optimizer="adam",
    metrics=dl.metrics.accuracy,
    epochs=2,
    batch_size=16,
    progress=False,
)
assert dl.predict(run, x).shape == (64, 2)
print("jaxdl", dl.__version__, "fits and predicts:", run.history)
