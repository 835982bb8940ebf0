"""Metrics: per-example functions in lower case, of which the weighted mean is taken, and `Metric`s.

`accuracy` and `regression` hold the per-example functions, `confusion`, `probabilities` and
`regression` the `Metric`s, `metric` their contract, `part` a metric of one of several outputs.

    metrics={"accuracy": metrics.accuracy, "top 3": functools.partial(metrics.top_k_accuracy, k=3),
    "r2": metrics.R2()}

Class labels are integers `[batch, ...]` or one-hot `[batch, ..., classes]`. Outputs of one column,
`[batch]` or `[batch, ..., 1]`, are binary: the positive class is predicted above a threshold (0 for
logits, 0.5 for probabilities), and labels are 0 and 1, or -1 and +1. In the per-example functions
every axis after the batch is averaged; in the `Metric`s of classes every position of a sequence is
an example of its sequence's weight.

Of `Padded` sequences, be it the outputs or the targets, only the steps within the lengths count: a
per-example function returns the mean over those of each example, of which the mean over examples
is taken; a `Metric` takes each of them as an example.

An output that is NaN predicts no class. In what counts classes (`accuracy`, `top_k_accuracy`,
`Precision`, `Recall`, `F1`, `ConfusionMatrix`) such an example is wrong: it is no true positive, is
predicted to be nothing, and stays out of every column of the matrix. What is computed of the
outputs themselves (errors, `Perplexity`, `ROCAUC`, `R2`) is NaN then.
"""

from jaxdl.metrics.accuracy import accuracy as accuracy
from jaxdl.metrics.accuracy import top_k_accuracy as top_k_accuracy
from jaxdl.metrics.confusion import F1 as F1
from jaxdl.metrics.confusion import ConfusionMatrix as ConfusionMatrix
from jaxdl.metrics.confusion import Precision as Precision
from jaxdl.metrics.confusion import Recall as Recall
from jaxdl.metrics.metric import Mean as Mean
from jaxdl.metrics.metric import Metric as Metric
from jaxdl.metrics.metric import as_metric as as_metric
from jaxdl.metrics.part import Part as Part
from jaxdl.metrics.probabilities import ROCAUC as ROCAUC
from jaxdl.metrics.probabilities import Perplexity as Perplexity
from jaxdl.metrics.regression import R2 as R2
from jaxdl.metrics.regression import absolute_error as absolute_error
from jaxdl.metrics.regression import squared_error as squared_error
