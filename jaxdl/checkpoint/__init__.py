"""Weights and checkpoints on disk: written whole or not at all, and never read when they are not
what was written.
"""

from jaxdl.checkpoint.checkpoints import Checkpoints as Checkpoints
from jaxdl.checkpoint.error import CheckpointError as CheckpointError
from jaxdl.checkpoint.loading import WeightDifferences as WeightDifferences
from jaxdl.checkpoint.loading import compare_weights as compare_weights
from jaxdl.checkpoint.loading import load as load
from jaxdl.checkpoint.reading import Checkpoint as Checkpoint
from jaxdl.checkpoint.reading import CheckpointInfo as CheckpointInfo
from jaxdl.checkpoint.reading import RunInfo as RunInfo
from jaxdl.checkpoint.weights import save as save
