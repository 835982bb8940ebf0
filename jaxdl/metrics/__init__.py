"""Metrics: per-example functions in lower case, of which the weighted mean is taken, and `Metric`s.

`accuracy` and `regression` hold the per-example functions, `confusion`, `ranking`, `extremes`,
`probabilities` and `regression` the `Metric`s, `metric` their contract, `part` a metric of one of
several outputs; `classification` and `curves` are the arithmetic.

    metrics={"accuracy": metrics.accuracy, "top 3": functools.partial(metrics.top_k_accuracy, k=3),
    "r2": metrics.R2()}

Where a model returns a dict of several outputs, a `Metric` takes the name of the one it measures,
`F1(output="tag")`, and so does a per-example function, `Mean(accuracy, output="tag")`. With
`ignore=-1` targets of -1 do not count, and every other element of the targets is an example, as in
`losses.ByPosition`. So is every position where data have weights by position.

Class labels are integers `[batch, ...]` or one-hot `[batch, ..., classes]`. Outputs of one column,
`[batch]` or `[batch, ..., 1]`, are binary: the positive class is predicted above a threshold (0 for
logits, 0.5 for probabilities), and labels are 0 and 1, or -1 and +1. In the per-example functions
every axis after the batch is averaged; in the `Metric`s of classes every position of a sequence is
an example of its sequence's weight. Where an example has several labels, `multilabel=True` takes
outputs and targets `[batch, ..., labels]`, each label a column of its own.

Of `Padded` sequences, be it the outputs or the targets, only the steps within the lengths count: a
per-example function returns the mean over those of each example, of which the mean over examples
is taken; a `Metric` takes each of them as an example.

An output that is NaN predicts no class. In what counts classes (`accuracy`, `top_k_accuracy`,
`top_k_precision`, `Precision`, `Recall`, `F1`, `FBeta`, `IoU`, `BalancedAccuracy`,
`ConfusionMatrix`) such an example is wrong: it is no true positive, is predicted to be nothing, and
stays out of every column of the matrix. What is computed of the outputs themselves (errors,
`Perplexity`, `ROCAUC` and other metrics of ranking, `R2`) is NaN then. Equal outputs rank alike,
0.0 and -0.0 too.
"""

from jaxdl.metrics.accuracy import accuracy as accuracy
from jaxdl.metrics.accuracy import top_k_accuracy as top_k_accuracy
from jaxdl.metrics.accuracy import top_k_precision as top_k_precision
from jaxdl.metrics.confusion import F1 as F1
from jaxdl.metrics.confusion import BalancedAccuracy as BalancedAccuracy
from jaxdl.metrics.confusion import ConfusionMatrix as ConfusionMatrix
from jaxdl.metrics.confusion import FBeta as FBeta
from jaxdl.metrics.confusion import IoU as IoU
from jaxdl.metrics.confusion import Precision as Precision
from jaxdl.metrics.confusion import Recall as Recall
from jaxdl.metrics.extremes import Maximum as Maximum
from jaxdl.metrics.extremes import Minimum as Minimum
from jaxdl.metrics.metric import Mean as Mean
from jaxdl.metrics.metric import Metric as Metric
from jaxdl.metrics.metric import OfOutput as OfOutput
from jaxdl.metrics.metric import as_metric as as_metric
from jaxdl.metrics.part import Part as Part
from jaxdl.metrics.probabilities import Perplexity as Perplexity
from jaxdl.metrics.ranking import ROCAUC as ROCAUC
from jaxdl.metrics.ranking import AveragePrecision as AveragePrecision
from jaxdl.metrics.ranking import PrecisionAtRecall as PrecisionAtRecall
from jaxdl.metrics.ranking import RecallAtPrecision as RecallAtPrecision
from jaxdl.metrics.ranking import SensitivityAtSpecificity as SensitivityAtSpecificity
from jaxdl.metrics.ranking import SpecificityAtSensitivity as SpecificityAtSensitivity
from jaxdl.metrics.regression import R2 as R2
from jaxdl.metrics.regression import absolute_error as absolute_error
from jaxdl.metrics.regression import squared_error as squared_error
