"""Pure array functions; the one place that knows platforms apart."""

from jaxdl.ops import activations as activations
from jaxdl.ops import attention as attention
from jaxdl.ops import conv as conv
from jaxdl.ops import dropout as dropout
from jaxdl.ops import floating as floating
from jaxdl.ops import linear as linear
from jaxdl.ops import norm as norm
from jaxdl.ops import pool as pool
from jaxdl.ops import recurrent as recurrent
