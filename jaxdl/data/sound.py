"""Sound: WAV files as samples, and samples as log-mel and cepstral features."""

import io
import math
import os
import wave
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from jaxdl.data.error import CorruptionError, DataError, excerpt
from jaxdl.data.streams import open_regular

# Samples a second; more is a broken header, which resampling would believe.
_HIGHEST_RATE = 1_000_000
# Of two rates, in lowest terms: the filter between them is twenty times as long.
_LARGEST_RATIO = 1 << 16
_EXTENSIBLE = b"\xfe\xff"
# The format of a sample, where a file has the extensible one.
_PCM = bytes.fromhex("0100000000001000800000aa00389b71")
# The least power that a band is given: that of the rounding to 16 bits.
_LEAST_POWER = 1e-10


def read_wav(path: str | os.PathLike[str], rate: int = 8000) -> Float32[np.ndarray, " samples"]:
    """Reads a WAV file as one channel of samples from -1 to 1.

    The channels of a file that has several are averaged. A file of a higher rate is resampled,
    through a filter against aliasing; one of a lower rate is refused, since the upper half of its
    spectrum would be silence that no recording has.

    Args:
        path: a file of integers (PCM) of 8, 16, 24 or 32 bits.
        rate: of the result, in samples a second.

    Returns:
        [samples] float32.

    Raises:
        DataError: the file cannot be read, is no such WAV file, is empty or short, or has too
            low a rate.
    """
    path = Path(path)
    name = f"{path.name!r} in {path.parent}"
    try:
        with open_regular(path) as file:
            samples, found = parse_wav(file.read())
    except OSError as error:
        raise DataError(
            f"read_wav: {str(path)!r} cannot be read ({error.strerror or error}) — check the path."
        ) from error
    except CorruptionError as error:
        raise DataError(f"read_wav: {name} {error} — convert it anew to PCM.") from error
    if found < rate:
        raise DataError(
            f"read_wav: {name} has {found} samples a second where {rate} are wanted, and nothing "
            f"above {found // 2} Hz — record it anew, or ask for a rate of {found}."
        )
    if found // math.gcd(found, rate) > _LARGEST_RATIO:
        raise DataError(
            f"read_wav: {name} has {found} samples a second, which have too little in common with "
            f"{rate} for a filter between them — is the header broken?"
        )
    if found == rate:
        return samples
    return _resampled(samples, found, rate)


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
        CorruptionError: it is no such file, holds no sample, or fewer than its header promises.
    """
    try:
        with wave.open(io.BytesIO(_as_plain(data))) as file:
            channels, width, rate, promised = file.getparams()[:4]
            frames = file.readframes(promised)
    # RuntimeError: a part that ends behind the file.
    except (wave.Error, EOFError, RuntimeError) as error:
        reason = excerpt(error) or "it ends too soon"
        raise CorruptionError(f"is no WAV file of integers ({reason})") from error
    if width > 4 or not 0 < rate <= _HIGHEST_RATE:
        raise CorruptionError(
            f"has {8 * width} bits a sample and {rate} samples a second, where at most 32 bits and "
            f"1 to {_HIGHEST_RATE} samples are expected"
        )
    size = promised * channels * width
    if len(frames) != size:
        raise CorruptionError(
            f"holds {len(frames)} bytes of sound where its header promises {size}"
        )
    if not promised:
        raise CorruptionError("holds no sample")
    samples = _scaled(frames, width).reshape(-1, channels)
    return samples.mean(1).astype(np.float32), rate


def _as_plain(data: bytes) -> bytes:
    """A file of integers in the extensible format marked as a plain one.

    `wave` reads the extensible format from Python 3.12 on.
    """
    # Behind RIFF, the size and WAVE.
    offset = 12
    while offset + 8 <= len(data):
        start = offset + 8
        name = data[offset : offset + 4]
        size = int.from_bytes(data[offset + 4 : start], "little")
        if name == b"fmt ":
            if size < 40 or not _is_extensible(data[start : start + 40]):
                return data
            return data[:start] + b"\1\0" + data[start + 2 :]
        offset = start + size + size % 2
    return data


def _is_extensible(header: bytes) -> bool:
    """Whether the format of a WAV file is the extensible one, with integer samples."""
    return header[:2] == _EXTENSIBLE and header[24:] == _PCM


def _scaled(frames: bytes, width: int) -> np.ndarray:
    """Little-endian integers of some bytes each, as float64 from -1 to 1."""
    wide = np.zeros((len(frames) // width, 4), np.uint8)
    wide[:, 4 - width :] = np.frombuffer(frames, np.uint8).reshape(-1, width)
    # 8 bits are unsigned, and their silence is 128.
    if width == 1:
        wide[:, 3] ^= 0x80
    return wide.view("<i4")[:, 0] / 2**31


def log_mel(
    samples: Float[np.ndarray, " samples"],
    rate: int = 8000,
    *,
    frames: int = 100,
    bands: int = 10,
    width: float = 0.025,
) -> Float32[np.ndarray, "frames bands"]:
    """The logarithm of the power in bands of the mel scale, in each of some frames.

        y[t, b] = log Σ_f B[b, f] |FFT(h · x[s_t : s_t + w])[f]|² / n

    The frames lie at equal distances from the first sample to the last, so that any recording,
    short or long, is spanned by the same number: its tempo is normalised. h is a Hamming window, n
    the power of two from w on, and B are triangles between points at equal distances on the mel
    scale, m(f) = 2595 log₁₀(1 + f/700), from 0 to half the rate, each 1 at its peak. A recording
    shorter than one frame is padded with silence.

    Args:
        samples: [samples], from -1 to 1.
        rate: samples a second.
        frames: the number of frames.
        bands: the number of bands.
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
    """Mel-frequency cepstral coefficients of each of some frames.

    They are the first of the cosine transform (DCT-II) of `log_mel`,

        c[t, k] = √(2/B) Σ_b y[t, b] cos(π k (b + ½) / B),   and c[t, 0] = √(1/B) Σ_b y[t, b]

    Args:
        samples: [samples], from -1 to 1.
        rate: samples a second.
        frames: the number of frames.
        coefficients: their number, with that of the loudness, k = 0.
        bands: B, the number of bands of `log_mel`.
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
    cepstrum = np.asarray(dct(powers, norm="ortho"))
    return cepstrum[:, :coefficients].astype(np.float32)


def _log_mel(
    owner: str, samples: np.ndarray, rate: int, frames: int, bands: int, width: float
) -> np.ndarray:
    """`log_mel` in float64, with errors that begin with the name of its caller."""
    what = None
    if not len(samples):
        what = "no sample"
    elif not np.all(np.isfinite(samples)):
        what = "a sample that is not finite"
    if what is not None:
        raise ValueError(
            f"{owner}: expected samples from -1 to 1, got {what} — is the recording empty or "
            "broken?"
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
    padded = np.pad(samples, (0, silence)).astype(np.float64)
    starts = np.linspace(0, len(padded) - length, frames)
    starts = np.round(starts).astype(int)
    cut = padded[starts[:, None] + np.arange(length)]
    spectrum = np.fft.rfft(cut * np.hamming(length), size)
    power = np.abs(spectrum) ** 2 / size
    return np.log(np.maximum(power @ triangles.T, _LEAST_POWER))


def mel_triangles(bands: int, size: int, rate: int) -> Float[np.ndarray, "bands frequencies"]:
    """The weight of each frequency of a real FFT in each band, B in `log_mel`.

    Args:
        bands: the number of bands.
        size: of the FFT.
        rate: samples a second.

    Returns:
        [bands, size // 2 + 1] float64.
    """
    highest = 2595 * np.log10(1 + rate / 2 / 700)
    mels = np.linspace(0, highest, bands + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    low = edges[:-2, None]
    peak = edges[1:-1, None]
    high = edges[2:, None]
    frequencies = np.arange(size // 2 + 1) * rate / size
    rising = (frequencies - low) / (peak - low)
    falling = (high - frequencies) / (high - peak)
    return np.maximum(0, np.minimum(rising, falling))
