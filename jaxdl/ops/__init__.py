"""Pure array functions, and the custom primitives among them: the one package that distinguishes
platforms.
"""

from jaxdl.ops import activations as activations
from jaxdl.ops import adaptive_pool as adaptive_pool
from jaxdl.ops import attention as attention
from jaxdl.ops import codebook as codebook
from jaxdl.ops import conv as conv
from jaxdl.ops import conv_transpose as conv_transpose
from jaxdl.ops import dropout as dropout
from jaxdl.ops import floating as floating
from jaxdl.ops import linear as linear
from jaxdl.ops import norm as norm
from jaxdl.ops import pad as pad
from jaxdl.ops import pool as pool
from jaxdl.ops import recurrent as recurrent
from jaxdl.ops import recurrent_variants as recurrent_variants
from jaxdl.ops import resize as resize
from jaxdl.ops import routing as routing
