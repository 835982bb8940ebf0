"""The small real data sets that scikit-learn ships, each with a fixed split."""

from importlib import import_module
from types import ModuleType

import numpy as np
from jaxtyping import Float32, Int32, Shaped

BREAST_CANCER_CLASSES = ("malignant", "benign")


def digits() -> tuple[
    tuple[Float32[np.ndarray, "train 8 8 1"], Int32[np.ndarray, " train"]],
    tuple[Float32[np.ndarray, "test 8 8 1"], Int32[np.ndarray, " test"]],
]:
    """Loads 1,797 real handwritten digits of 8 by 8 pixels, 1,437 for training and 360 (20 %) for
    testing.

    The split is scikit-learn's `train_test_split`, stratified by digit, with `random_state=0`: the
    same rows every time.

    Returns:
        `(train, test)`, each `(images, labels)`: images [n, 8, 8, 1] float32 from 0 (paper) to 1
        (ink, 16 in the source); labels [n] int32, 0 to 9.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.

    Source: Alpaydin, Kaynak, *Optical Recognition of Handwritten Digits* (UCI, 1998), its test
    part.

    >>> train, test = digits()
    >>> train[0].shape, train[1].shape, test[0].shape
    ((1437, 8, 8, 1), (1437,), (360, 8, 8, 1))
    """
    images, labels = _scikit_learn("datasets", "digits").load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    return _split("digits", images, labels.astype(np.int32), stratified=True)


def diabetes() -> tuple[
    tuple[Float32[np.ndarray, "train 10"], Float32[np.ndarray, " train"]],
    tuple[Float32[np.ndarray, "test 10"], Float32[np.ndarray, " test"]],
]:
    """Loads 442 diabetes patients, 353 for training and 89 (20 %) for testing, for a
    regression.

    The split is scikit-learn's `train_test_split` with `random_state=0`: the same rows every time.
    From each feature the mean of the *training* part is taken, and what is left is divided by the
    training part's standard deviation, in both.

    Returns:
        `(train, test)`, each `(features, targets)`: features [n, 10] float32, standardised: age,
        sex, body mass index, blood pressure and six blood values; targets [n] float32, the
        disease's progression after a year, 25 to 346.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.

    Source: Efron, Hastie, Johnstone, Tibshirani, *Least angle regression* (2004).

    >>> train, test = diabetes()
    >>> train[0].shape, train[1].shape, test[0].shape
    ((353, 10), (353,), (89, 10))
    """
    module = _scikit_learn("datasets", "diabetes")
    features, targets = module.load_diabetes(return_X_y=True, scaled=False)
    targets = targets.astype(np.float32)
    train, test = _split("diabetes", features, targets, stratified=False)
    return _standardised(train, test)


def breast_cancer() -> tuple[
    tuple[Float32[np.ndarray, "train 30"], Int32[np.ndarray, " train"]],
    tuple[Float32[np.ndarray, "test 30"], Int32[np.ndarray, " test"]],
]:
    """Loads 569 breast tumours, 455 for training and 114 (20 %) for testing, each malignant or
    benign.

    The split is scikit-learn's `train_test_split`, stratified by class, with `random_state=0`: the
    same rows every time. Features are standardised as in `diabetes`, with the statistics of the
    training part.

    Returns:
        `(train, test)`, each `(features, labels)`: features [n, 30] float32, standardised measures
        of cell nuclei; labels [n] int32, positions in `BREAST_CANCER_CLASSES`: 0 malignant, 1
        benign.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.

    Source: Wolberg, Mangasarian, Street, *Breast Cancer Wisconsin (Diagnostic)* (UCI, 1995).

    >>> train, test = breast_cancer()
    >>> train[0].shape, train[1].shape, test[0].shape
    ((455, 30), (455,), (114, 30))
    """
    module = _scikit_learn("datasets", "breast_cancer")
    features, labels = module.load_breast_cancer(return_X_y=True)
    labels = labels.astype(np.int32)
    train, test = _split("breast_cancer", features, labels, stratified=True)
    return _standardised(train, test)


_Part = tuple[np.ndarray, np.ndarray]


def _scikit_learn(module: str, owner: str) -> ModuleType:
    try:
        return import_module(f"sklearn.{module}")
    except ModuleNotFoundError as error:
        if error.name != "sklearn":
            raise
        raise ModuleNotFoundError(
            f"data.{owner}: these data come with scikit-learn, which is not installed — pip "
            'install "jaxdl[experiments]" brings it.',
            name="sklearn",
        ) from error


def _split(
    owner: str, inputs: np.ndarray, targets: np.ndarray, stratified: bool
) -> tuple[_Part, _Part]:
    module = _scikit_learn("model_selection", owner)
    stratify = targets if stratified else None
    train_inputs, test_inputs, train_targets, test_targets = module.train_test_split(
        inputs,
        targets,
        test_size=0.2,
        random_state=0,
        stratify=stratify,
    )
    return (train_inputs, train_targets), (test_inputs, test_targets)


def _standardised(train: _Part, test: _Part) -> tuple[_Part, _Part]:
    mean = train[0].mean(0)
    deviation = train[0].std(0)

    def scaled(
        features: Shaped[np.ndarray, "rows columns"],
    ) -> Float32[np.ndarray, "rows columns"]:
        return ((features - mean) / deviation).astype(np.float32)

    return (scaled(train[0]), train[1]), (scaled(test[0]), test[1])
