"""Text from a language model, as one compiled program."""

from jaxdl.generation.generate import generate as generate
