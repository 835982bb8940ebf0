"""Programs with compiler options, the target that they are compiled for, and what stands in for
one-off programs on the host.
"""

from jaxdl.compiling.target import compiling_for as compiling_for
