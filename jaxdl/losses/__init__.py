"""Losses as per-example functions: `loss(outputs, targets) -> [batch]`, in optax's order.

`classification`, `regression`, `likelihood`, `margins`, `segmentation` and `ctc` hold the losses;
`batchwise` declares those that mix the examples of a batch, as those in `embeddings` do; `ByOutput`
sums those of several outputs by name; `checks` checks a loss and its targets before training.

Every axis after the batch is averaged, so logits `[batch, time, classes]` with labels `[batch,
time]` give `[batch]`. Outputs, targets or both may be `Padded` sequences: an example's loss is then
the mean over its steps within the lengths, and training takes the mean of these over the examples,
whatever their lengths, or with `ByPosition` the mean over all steps of all of them, which may leave
targets out; what lies behind, be it NaN or a label that no class has, changes neither
value nor gradient. Training weights and sums these values, so that masks, sample weights and padded
batches are exact. The arithmetic is optax's wherever optax has the loss; what is added here is that
shapes are matched and never broadcast, that a loss is computed in at least float32, and that
targets which do not fit are refused in a sentence.

A loss of several outputs takes a dict of them by name, a tuple in the order of the names, or one
array with as many along its first axis after the batch, as of `Map`.

A loss that takes settings is given them by `functools.partial(losses.huber, delta=2.0)`.
"""

from jaxdl.losses.batchwise import batchwise as batchwise
from jaxdl.losses.by_output import ByOutput as ByOutput
from jaxdl.losses.by_position import ByPosition as ByPosition
from jaxdl.losses.classification import binary_cross_entropy as binary_cross_entropy
from jaxdl.losses.classification import (
    binary_cross_entropy_from_probabilities as binary_cross_entropy_from_probabilities,
)
from jaxdl.losses.classification import focal as focal
from jaxdl.losses.classification import hinge as hinge
from jaxdl.losses.classification import kl_divergence as kl_divergence
from jaxdl.losses.classification import softmax_cross_entropy as softmax_cross_entropy
from jaxdl.losses.ctc import ctc as ctc
from jaxdl.losses.embeddings import info_nce as info_nce
from jaxdl.losses.embeddings import nt_xent as nt_xent
from jaxdl.losses.likelihood import (
    gaussian_negative_log_likelihood as gaussian_negative_log_likelihood,
)
from jaxdl.losses.likelihood import (
    poisson_negative_log_likelihood as poisson_negative_log_likelihood,
)
from jaxdl.losses.margins import contrastive as contrastive
from jaxdl.losses.margins import cosine_embedding as cosine_embedding
from jaxdl.losses.margins import margin_ranking as margin_ranking
from jaxdl.losses.margins import multiclass_hinge as multiclass_hinge
from jaxdl.losses.margins import squared_hinge as squared_hinge
from jaxdl.losses.margins import triplet_margin as triplet_margin
from jaxdl.losses.regression import cosine_distance as cosine_distance
from jaxdl.losses.regression import huber as huber
from jaxdl.losses.regression import log_cosh as log_cosh
from jaxdl.losses.regression import mean_absolute_error as mean_absolute_error
from jaxdl.losses.regression import (
    mean_absolute_percentage_error as mean_absolute_percentage_error,
)
from jaxdl.losses.regression import mean_squared_error as mean_squared_error
from jaxdl.losses.regression import (
    mean_squared_logarithmic_error as mean_squared_logarithmic_error,
)
from jaxdl.losses.segmentation import dice as dice
