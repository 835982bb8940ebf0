"""Real data as NumPy arrays, texts as ids, sound as features, and image augmentation.

`cifar`, `idx` (MNIST), `imdb`, `shakespeare`, `spoken_digits` and `tables` load data sets;
`archive`, `content`, `streams`, `download` and `transfer` read and download their files, which must
have a known content. `text` and `windows` make examples of texts, `buckets` batches of sequences,
`shuffled` batches of a stream's examples in another order, `sound` features of recordings.
`augment` changes images inside the training step; `source` holds the arrays and streams of batches
that compiled programs loop over.
"""

from jaxdl.data import augment as augment
from jaxdl.data.buckets import Buckets as Buckets
from jaxdl.data.buckets import pad as pad
from jaxdl.data.cifar import CIFAR10_CLASSES as CIFAR10_CLASSES
from jaxdl.data.cifar import cifar10 as cifar10
from jaxdl.data.error import DataError as DataError
from jaxdl.data.idx import mnist as mnist
from jaxdl.data.imdb import imdb as imdb
from jaxdl.data.shakespeare import shakespeare as shakespeare
from jaxdl.data.shuffled import Shuffled as Shuffled
from jaxdl.data.sound import log_mel as log_mel
from jaxdl.data.sound import mfcc as mfcc
from jaxdl.data.sound import read_wav as read_wav
from jaxdl.data.spoken_digits import spoken_digits as spoken_digits
from jaxdl.data.tables import BREAST_CANCER_CLASSES as BREAST_CANCER_CLASSES
from jaxdl.data.tables import breast_cancer as breast_cancer
from jaxdl.data.tables import diabetes as diabetes
from jaxdl.data.tables import digits as digits
from jaxdl.data.text import Characters as Characters
from jaxdl.data.text import Vocabulary as Vocabulary
from jaxdl.data.windows import RandomWindows as RandomWindows
from jaxdl.data.windows import windows as windows
