"""Real data as NumPy arrays, and image augmentation."""

from jaxdl.data import augment as augment
from jaxdl.data.cifar import CIFAR10_CLASSES as CIFAR10_CLASSES
from jaxdl.data.cifar import cifar10 as cifar10
from jaxdl.data.error import DataError as DataError
from jaxdl.data.idx import mnist as mnist
from jaxdl.data.tables import BREAST_CANCER_CLASSES as BREAST_CANCER_CLASSES
from jaxdl.data.tables import breast_cancer as breast_cancer
from jaxdl.data.tables import diabetes as diabetes
from jaxdl.data.tables import digits as digits
