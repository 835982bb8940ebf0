"""Training: pure steps, the programs they become, and the one loop."""

from jaxdl.training.callbacks import Callback as Callback
from jaxdl.training.callbacks import Change as Change
from jaxdl.training.callbacks import Stage as Stage
from jaxdl.training.evaluation import evaluate as evaluate
from jaxdl.training.evaluation import predict as predict
from jaxdl.training.fit import fit as fit
from jaxdl.training.guard import Guarded as Guarded
from jaxdl.training.history import EarlyStopping as EarlyStopping
from jaxdl.training.iterate import MadeStep as MadeStep
from jaxdl.training.iterate import iterate as iterate
from jaxdl.training.iterate import make_step as make_step
from jaxdl.training.learning_rate_search import LearningRateSearch as LearningRateSearch
from jaxdl.training.learning_rate_search import find_learning_rate as find_learning_rate
from jaxdl.training.objective import Constants as Constants
from jaxdl.training.objective import Objective as Objective
from jaxdl.training.run import Run as Run
from jaxdl.training.saved_run import load_run as load_run
from jaxdl.training.state import EvalState as EvalState
from jaxdl.training.state import Measured as Measured
from jaxdl.training.state import TrainState as TrainState
from jaxdl.training.step import Batch as Batch
from jaxdl.training.step import EvaluationStep as EvaluationStep
from jaxdl.training.step import TrainingStep as TrainingStep
from jaxdl.training.steps.adversarial import Adversarial as Adversarial
from jaxdl.training.steps.adversarial_loss import AdversarialLoss as AdversarialLoss
from jaxdl.training.steps.adversarial_loss import NonSaturating as NonSaturating
from jaxdl.training.steps.adversarial_loss import Wasserstein as Wasserstein
from jaxdl.training.steps.minimize import Minimize as Minimize
from jaxdl.training.steps.reconstruction import Reconstruction as Reconstruction
from jaxdl.training.steps.supervised import Supervised as Supervised
from jaxdl.training.steps.variational import Variational as Variational
from jaxdl.training.steps.variational import (
    bernoulli_log_likelihood as bernoulli_log_likelihood,
)
from jaxdl.training.steps.variational import gaussian_divergence as gaussian_divergence
from jaxdl.training.steps.variational import gaussian_log_likelihood as gaussian_log_likelihood
from jaxdl.training.train import train as train
