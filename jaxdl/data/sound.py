"""Sound: WAV files as samples, and samples as log-mel and cepstral features."""

import io
import math
import os
import wave
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from jaxdl.data.archive import open_regular
from jaxdl.data.error import Damage, DataError, excerpt

_FASTEST = 1_000_000  # samples a second; more is a broken header, which resampling would believe
_LONGEST_RATIO = (
    1 << 16
)  # of two rates, in lowest terms: the filter between them is twenty times as long
_EXTENSIBLE = b"\xfe\xff"
_WHOLE_NUMBERS = bytes.fromhex(
    "0100000000001000800000aa00389b71"
)  # the format of a sample, where a file has the extensible one
_QUIETEST = 1e-10  # the least power that a band is given: that of the rounding to 16 bits


def read_wav(path: str | os.PathLike[str], rate: int = 8000) -> Float32[np.ndarray, " samples"]:
    """Reads a WAV file as one channel of samples from -1 to 1.

    The channels of a file that has several are averaged. A file of a higher rate is resampled,
    through a filter that keeps what is above the new rate's half from folding back; one of a lower
    rate is refused, for the upper half of its spectrum would be silence that no recording has.

    Args:
        path: a file of whole numbers (PCM) of 8, 16, 24 or 32 bits.
        rate: samples a second, as they are wanted.

    Returns:
        [samples] float32.

    Raises:
        DataError: if the file cannot be read, is no such WAV file, is empty or short, or has too
            low a rate.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            samples, came = parse_wav(file.read())
    except OSError as error:
        raise DataError(
            f"read_wav: {str(path)!r} cannot be read ({error.strerror or error}) — check the path."
        ) from error
    except Damage as damage:
        raise DataError(
            f"read_wav: {path.name!r} in {path.parent} {damage} — convert it anew to PCM."
        ) from damage
    if came < rate:
        what = f"{path.name!r} in {path.parent} has {came} samples a second where {rate} are wanted"
        raise DataError(
            f"read_wav: {what}, and nothing above {came // 2} Hz — record it anew, or ask for a "
            f"rate of {came}."
        )
    if came // math.gcd(came, rate) > _LONGEST_RATIO:
        what = (
            f"{path.name!r} in {path.parent} has {came} samples a second, which have too little "
            f"in common with {rate}"
        )
        raise DataError(f"read_wav: {what} for a filter between them — is the header broken?")
    return samples if came == rate else _resampled(samples, came, rate)


def _resampled(samples: np.ndarray, old: int, new: int) -> np.ndarray:
    from scipy.signal import resample_poly

    divisor = math.gcd(old, new)
    return resample_poly(samples, new // divisor, old // divisor).astype(np.float32)


def parse_wav(data: bytes) -> tuple[Float32[np.ndarray, " samples"], int]:
    """Turns the bytes of a WAV file into samples from -1 to 1, the mean of its channels, and their
    rate in Hz.

    Args:
        data: the whole file, PCM of 8 (unsigned), 16, 24 or 32 bits.

    Returns:
        `(samples, rate)`.

    Raises:
        Damage: if it is no such file, holds no sample, or fewer than its header promises.
    """
    try:
        with wave.open(io.BytesIO(_as_plain(data))) as file:
            channels, width, rate, promised = file.getparams()[:4]
            frames = file.readframes(promised)
    except (
        wave.Error,
        EOFError,
        RuntimeError,
    ) as error:  # RuntimeError: a part that ends behind the file
        raise Damage(
            f"is no WAV file of whole numbers ({excerpt(error) or 'it ends too soon'})"
        ) from error
    if width > 4 or not 0 < rate <= _FASTEST:
        limits = f"at most 32 bits and 1 to {_FASTEST} samples are expected"
        raise Damage(f"has {8 * width} bits a sample and {rate} samples a second, where {limits}")
    if len(frames) != promised * channels * width:
        raise Damage(
            f"holds {len(frames)} bytes of sound where its header promises "
            f"{promised * channels * width}"
        )
    if not promised:
        raise Damage("holds no sample")
    return _scaled(frames, width).reshape(-1, channels).mean(1).astype(np.float32), rate


def _as_plain(data: bytes) -> bytes:
    """A file of whole numbers in the extensible format, which `wave` reads from Python 3.12 on,
    marked as plain.
    """
    place = 12  # behind RIFF, the size and WAVE
    while place + 8 <= len(data):
        name, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        start = place + 8
        if name == b"fmt ":
            extensible = (
                data[start : start + 2] == _EXTENSIBLE
                and data[start + 24 : start + 40] == _WHOLE_NUMBERS
            )
            return data[:start] + b"\1\0" + data[start + 2 :] if extensible and size >= 40 else data
        place = start + size + size % 2
    return data


def _scaled(frames: bytes, width: int) -> np.ndarray:
    """Little-endian whole numbers of some bytes each, as float64 from -1 to 1."""
    wide = np.zeros((len(frames) // width, 4), np.uint8)
    wide[:, 4 - width :] = np.frombuffer(frames, np.uint8).reshape(-1, width)
    if width == 1:
        wide[:, 3] ^= 0x80  # 8 bits are unsigned, and their silence is 128
    return wide.view("<i4")[:, 0] / 2**31


def log_mel(
    samples: Float[np.ndarray, " samples"],
    rate: int = 8000,
    *,
    frames: int = 100,
    bands: int = 10,
    width: float = 0.025,
) -> Float32[np.ndarray, "frames bands"]:
    """The logarithm of the power in each of several bands, which are equally wide on the mel scale,
    in each of some frames.

        y[t, b] = log Σ_f B[b, f] |FFT(h · x[s_t : s_t + w])[f]|² / n

    The frames lie at equal distances from the first sample to the last, so that any recording,
    short or long, is spanned by
    the same number: its tempo is normalised. h is a Hamming window, n the power of two from w on,
    and B are triangles between points at equal distances on the mel scale, m(f) = 2595 log₁₀(1 +
    f/700), from 0 to half the rate, each 1 at its peak. A recording shorter than one frame is
    filled up with silence.

    Args:
        samples: [samples], from -1 to 1.
        rate: samples a second.
        frames: how many.
        bands: how many.
        width: seconds in a frame.

    Returns:
        [frames, bands] float32; at least log 1e-10.

    Raises:
        ValueError: there is no sample, or one that is not finite; or bands so many that some hold
            no frequency of the FFT.

    Source: Davis, Mermelstein, *Comparison of parametric representations for monosyllabic word
    recognition* (1980); the mel scale is O'Shaughnessy's, *Speech communication* (1987).
    """
    return _log_mel("log_mel", samples, rate, frames, bands, width).astype(np.float32)


def mfcc(
    samples: Float[np.ndarray, " samples"],
    rate: int = 8000,
    *,
    frames: int = 100,
    coefficients: int = 10,
    bands: int = 26,
    width: float = 0.025,
) -> Float32[np.ndarray, "frames coefficients"]:
    """The mel-frequency cepstral coefficients of each of some frames: the first of the cosine
    transform (DCT-II) of `log_mel`.

        c[t, k] = √(2/B) Σ_b y[t, b] cos(π k (b + ½) / B),   and c[t, 0] = √(1/B) Σ_b y[t, b]

    Args:
        samples: [samples], from -1 to 1.
        rate: samples a second.
        frames: how many.
        coefficients: how many, the one for loudness, k = 0, among them.
        bands: B, how many bands of `log_mel` they are made of.
        width: seconds in a frame.

    Returns:
        [frames, coefficients] float32.

    Raises:
        ValueError: as in `log_mel`; or more coefficients than bands.

    Source: Davis, Mermelstein, *Comparison of parametric representations for monosyllabic word
    recognition* (1980).
    """
    from scipy.fft import dct

    if not 1 <= coefficients <= bands:
        raise ValueError(
            f"mfcc: {bands} bands give 1 to {bands} coefficients, got coefficients={coefficients} "
            f"— ask for more bands."
        )
    powers = _log_mel("mfcc", samples, rate, frames, bands, width)
    return np.asarray(dct(powers, norm="ortho"))[:, :coefficients].astype(np.float32)


def _log_mel(
    owner: str, samples: np.ndarray, rate: int, frames: int, bands: int, width: float
) -> np.ndarray:
    if not len(samples) or not np.all(np.isfinite(samples)):
        what = "a sample that is not finite" if len(samples) else "no sample"
        raise ValueError(
            f"{owner}: expected samples from -1 to 1, got {what} — is the recording empty or "
            f"broken?"
        )
    length = round(width * rate)
    if min(length, frames, bands) < 1:
        raise ValueError(
            f"{owner}: expected at least one frame of one sample, and one band, got {frames=}, "
            f"{width=}, {bands=}."
        )
    size = 1 << (length - 1).bit_length()
    triangles = mel_triangles(bands, size, rate)
    if not triangles.any(1).all():
        raise ValueError(
            f"{owner}: an FFT of {size} samples is too coarse for {bands} bands — ask for fewer, "
            f"or wider frames."
        )
    silence = max(0, length - len(samples))
    starts = np.round(np.linspace(0, len(samples) + silence - length, frames)).astype(int)
    cut = np.pad(samples, (0, silence)).astype(np.float64)[starts[:, None] + np.arange(length)]
    power = np.abs(np.fft.rfft(cut * np.hamming(length), size)) ** 2 / size
    return np.log(np.maximum(power @ triangles.T, _QUIETEST))


def mel_triangles(bands: int, size: int, rate: int) -> Float[np.ndarray, "bands frequencies"]:
    """The weights of the frequencies of a real FFT of some size in each band: [bands, size // 2 +
    1] float64.
    """
    edges = 700 * (
        10 ** (np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), bands + 2) / 2595) - 1
    )
    low, peak, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    frequencies = np.arange(size // 2 + 1) * rate / size
    return np.maximum(
        0, np.minimum((frequencies - low) / (peak - low), (high - frequencies) / (high - peak))
    )
