"""The contract of a layer, padded sequences, trees of arrays, how inputs enter a model."""

from jaxdl.core import tree as tree
from jaxdl.core.error import LayerError as LayerError
from jaxdl.core.function import forward as forward
from jaxdl.core.layer import Layer as Layer
from jaxdl.core.layer import Parameterless as Parameterless
from jaxdl.core.layer import Span as Span
from jaxdl.core.layer import Stateless as Stateless
from jaxdl.core.mode import Eval as Eval
from jaxdl.core.mode import Mode as Mode
from jaxdl.core.mode import Train as Train
from jaxdl.core.padded import Padded as Padded
from jaxdl.core.table import Table as Table
