"""Architectures as functions that return a layer."""

from jaxdl.models.cnn import cnn as cnn
from jaxdl.models.mlp import mlp as mlp
from jaxdl.models.resnet import resnet as resnet
