"""Optimizers and learning rates, around those of optax.

`optimizers` makes an optimizer of a name, a function or a learning rate, `schedules` are learning
rates in fractions of a run, `learning_rate` reads the rate and the parameters to evaluate from an
optimizer's state, and `forms` takes an optimizer's numbers out, so that one program serves all.
"""

from jaxdl.optim.optimizers import NAMES as NAMES
from jaxdl.optim.optimizers import as_optimizer as as_optimizer
from jaxdl.optim.schedules import Cosine as Cosine
from jaxdl.optim.schedules import Linear as Linear
from jaxdl.optim.schedules import OneCycle as OneCycle
from jaxdl.optim.schedules import Plateau as Plateau
from jaxdl.optim.schedules import Schedule as Schedule
