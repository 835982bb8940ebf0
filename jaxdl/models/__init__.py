"""Architectures as functions that return a layer."""

from jaxdl.models.autoencoder import VariationalAutoencoder as VariationalAutoencoder
from jaxdl.models.autoencoder import conv_autoencoder as conv_autoencoder
from jaxdl.models.autoencoder import dense_autoencoder as dense_autoencoder
from jaxdl.models.cnn import cnn as cnn
from jaxdl.models.gan import conv_discriminator as conv_discriminator
from jaxdl.models.gan import conv_generator as conv_generator
from jaxdl.models.gan import dense_discriminator as dense_discriminator
from jaxdl.models.gan import dense_generator as dense_generator
from jaxdl.models.gpt import gpt as gpt
from jaxdl.models.mlp import mlp as mlp
from jaxdl.models.resnet import resnet as resnet
from jaxdl.models.vit import vit as vit
