"""Optimizers by name and from factories, learning-rate schedules, equal optimizers made one."""

from jaxdl.optim.optimizers import NAMES as NAMES
from jaxdl.optim.optimizers import as_optimizer as as_optimizer
from jaxdl.optim.schedules import Cosine as Cosine
from jaxdl.optim.schedules import Linear as Linear
from jaxdl.optim.schedules import OneCycle as OneCycle
from jaxdl.optim.schedules import Plateau as Plateau
from jaxdl.optim.schedules import Schedule as Schedule
