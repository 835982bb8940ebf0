"""The summary of a model, and the operation that first gave a value that is not finite."""

from jaxdl.debugging.origin import Origin as Origin
from jaxdl.debugging.origin import first_not_finite as first_not_finite
from jaxdl.debugging.summary import Summary as Summary
from jaxdl.debugging.summary import summary as summary
