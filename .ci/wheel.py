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
model = dl.Dense(2)
run = dl.fit(
    model,
    (x, y),
    loss=dl.losses.softmax_cross_entropy,
    optimizer="adam",
    metrics={"accuracy": dl.metrics.accuracy},
    epochs=2,
    batch_size=16,
    progress=False,
)
assert dl.predict(model, run.params, run.state, x).shape == (64, 2)
print("jaxdl", dl.__version__, "fits and predicts:", run.history)
