"""Many models trained as one program."""

from jaxdl.population.runs import Runs as Runs
from jaxdl.population.search import fit_many as fit_many
from jaxdl.population.search import sweep as sweep
