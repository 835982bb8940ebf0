"""Sound: WAV files of every kind, sane and broken, and features against their definitions in float64."""

import io
import os
import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from jaxdl.data import DataError, log_mel, mfcc, read_wav
from jaxdl.data.error import CorruptionError
from jaxdl.data.sound import mel_triangles, parse_wav

RANDOM = np.random.default_rng(0)
NUMBERS = np.array([0, 1, -1, 100, -100, 32767, -32768])


def wav(numbers: np.ndarray, width: int = 2, channels: int = 1, rate: int = 8000) -> bytes:
    """A file of numbers of 16 bits, written with more or fewer bits."""
    if width == 1:
        frames = (numbers // 256 + 128).astype(np.uint8).tobytes()
    else:
        frames = b"".join(
            (int(number) << 8 * (width - 2)).to_bytes(width, "little", signed=True)
            for number in numbers
        )
    packed = io.BytesIO()
    with wave.open(packed, "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(frames)
    return packed.getvalue()


def tone(frequency: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate) / 2


def recorded(samples: np.ndarray, **kind: int) -> bytes:
    return wav(np.round(samples * 32767).astype(int), **kind)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_samples_of_every_width_are_the_numbers_over_the_largest(width: int):
    samples, rate = parse_wav(wav(NUMBERS, width))
    expected = (NUMBERS // 256) / 128 if width == 1 else NUMBERS / 32768
    np.testing.assert_array_equal(samples, expected.astype(np.float32))
    assert (samples.dtype, rate) == (np.float32, 8000)


def test_samples_are_those_that_scipy_reads(tmp_path: Path):
    from scipy.io import wavfile

    numbers = RANDOM.integers(-32768, 32768, 500)
    (tmp_path / "some.wav").write_bytes(wav(numbers))
    _, expected = wavfile.read(tmp_path / "some.wav")
    np.testing.assert_array_equal(read_wav(tmp_path / "some.wav") * 32768, expected)


def test_channels_are_averaged():
    samples, _ = parse_wav(wav(np.array([100, 300, -200, 200, 5, -7]), channels=2))
    np.testing.assert_array_equal(samples, np.array([200, 0, -1], np.float32) / 32768)


def extensible(plain: bytes, subformat: int) -> bytes:
    """The same file in the extensible format, behind a part of another kind."""
    kind = struct.pack("<HHIH", 22, 0, 0, subformat) + bytes.fromhex(
        "000000001000800000aa00389b71"
    )
    form = b"fmt " + struct.pack("<IH", 40, 65534) + plain[22:36] + kind
    parts = b"WAVE" + b"LIST" + struct.pack("<I", 3) + b"fmt\0" + form + plain[36:]
    return b"RIFF" + struct.pack("<I", len(parts)) + parts


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 7])
def test_the_extensible_format_of_whole_numbers_is_read_as_the_plain_one(
    width: int, channels: int
):
    numbers = RANDOM.integers(-32768, 32768, 70)
    plain = wav(numbers, width, channels)
    np.testing.assert_array_equal(parse_wav(extensible(plain, 1))[0], parse_wav(plain)[0])
    with pytest.raises(CorruptionError, match="is no WAV file of integers"):
        parse_wav(extensible(plain, 3))  # floats
    with pytest.raises(CorruptionError):
        parse_wav(extensible(plain, 1)[:60])


GOOD = wav(NUMBERS)


BROKEN = {
    "empty": (b"", r"is no WAV file of integers \(it ends too soon\)"),
    "another format": (
        b"<html>no</html>",
        r"is no WAV file of integers \(file does not start with RIFF id\)",
    ),
    "a format that ends elsewhere": (
        GOOD[:16] + b"\xff" * 4 + GOOD[20:],
        "is no WAV file of integers",
    ),
    "half a header": (GOOD[:30], "is no WAV file of integers"),
    "no data": (GOOD[:36], "is no WAV file of integers"),
    "header only": (GOOD[:44], "holds 0 bytes of sound where its header promises 14"),
    "short": (GOOD[:-1], "holds 13 bytes of sound where its header promises 14"),
    "promising": (
        GOOD[:40] + struct.pack("<I", 10**9) + GOOD[44:],
        "holds 14 bytes .* its header promises 1000000000",
    ),
    "no sample": (wav(NUMBERS[:0]), "holds no sample"),
    "floats": (
        GOOD[:20] + struct.pack("<H", 3) + GOOD[22:],
        r"is no WAV file of integers \(unknown format: 3\)",
    ),
    "no channel": (GOOD[:22] + struct.pack("<H", 0) + GOOD[24:], "is no WAV file of integers"),
    "no rate": (
        GOOD[:24] + struct.pack("<I", 0) + GOOD[28:],
        "has 16 bits a sample and 0 samples a second, where",
    ),
    "absurd rate": (
        GOOD[:24] + struct.pack("<I", 2**32 - 1) + GOOD[28:],
        "has .* and 4294967295 samples a second, where",
    ),
    "40 bits": (
        GOOD[:34] + struct.pack("<H", 40) + GOOD[36:],
        "has 40 bits a sample and .* at most 32 bits and 1 to 1000000",
    ),
}


@pytest.mark.parametrize(("content", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes, sentence: str):
    path = tmp_path / "broken.wav"
    path.write_bytes(content)
    with pytest.raises(
        DataError,
        match=rf"^read_wav: 'broken.wav' in {tmp_path} {sentence}.* — convert it anew",
    ):
        read_wav(path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(
        DataError, match=r"^read_wav: '.*none.wav' cannot be read \(No such file or directory\)"
    ):
        read_wav(tmp_path / "none.wav")


@pytest.mark.parametrize("rate", [16000, 11025, 44100])
def test_a_file_of_a_higher_rate_is_resampled(tmp_path: Path, rate: int):
    path = tmp_path / "tone.wav"
    path.write_bytes(recorded(tone(440, rate), rate=rate))
    samples = read_wav(path)
    assert (len(samples), samples.dtype) == (4000, np.float32)
    np.testing.assert_allclose(samples[100:-100], tone(440, 8000)[100:-100], atol=2e-3)


def test_what_the_lower_rate_cannot_hold_does_not_fold_back(tmp_path: Path):
    path = tmp_path / "tone.wav"
    path.write_bytes(
        recorded(tone(5500, 16000), rate=16000)
    )  # every second sample would be a tone of 2500 Hz
    assert np.abs(read_wav(path)[100:-100]).max() < 2e-3


def test_a_file_of_a_lower_rate_is_refused(tmp_path: Path):
    path = tmp_path / "tone.wav"
    path.write_bytes(recorded(tone(440, 4000), rate=4000))
    with pytest.raises(
        DataError,
        match=r"has 4000 samples a second where 8000 are wanted, and nothing above 2000 Hz — record",
    ):
        read_wav(path)
    assert len(read_wav(path, rate=4000)) == 2000


def features_by_definition(
    samples: np.ndarray, frames: int, bands: int, coefficients: int
) -> tuple[np.ndarray, np.ndarray]:
    """Log-mel powers and their cosine transform at 8 kHz, one number after another, with the Fourier sum written out."""
    points = [
        700 * (10 ** (m / 2595) - 1)
        for m in np.linspace(0, 2595 * np.log10(1 + 4000 / 700), bands + 2)
    ]
    powers, cepstra = np.zeros((frames, bands)), np.zeros((frames, coefficients))
    for t in range(frames):
        start = round((len(samples) - 200) * t / (frames - 1))
        window = [0.54 - 0.46 * np.cos(2 * np.pi * n / 199) for n in range(200)]
        frame = samples[start : start + 200].astype(np.float64) * window
        spectrum = [
            abs(np.sum(frame * np.exp(-2j * np.pi * f * np.arange(200) / 256))) ** 2 / 256
            for f in range(129)
        ]
        for b in range(bands):
            low, peak, high = points[b : b + 3]
            for f in range(129):
                hertz = f * 8000 / 256
                if low < hertz < high:
                    weight = (
                        (hertz - low) / (peak - low)
                        if hertz <= peak
                        else (high - hertz) / (high - peak)
                    )
                    powers[t, b] += weight * spectrum[f]
    powers = np.log(np.maximum(powers, 1e-10))
    for k in range(coefficients):
        cosines = np.cos(np.pi * k * (np.arange(bands) + 0.5) / bands)
        cepstra[:, k] = powers @ cosines * np.sqrt((2 if k else 1) / bands)
    return powers, cepstra


def test_features_are_their_definitions():
    samples = (0.1 * RANDOM.normal(size=1234) + np.sin(np.arange(1234) / 5) / 2).astype(
        np.float32
    )
    powers, cepstra = features_by_definition(samples, frames=8, bands=26, coefficients=10)
    np.testing.assert_allclose(
        log_mel(samples, frames=8, bands=26), powers, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(mfcc(samples, frames=8), cepstra, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rate", [8000, 16000])
def test_a_tone_lies_in_its_band(rate: int):
    powers = log_mel(tone(1000, rate), rate, bands=20)
    triangles = mel_triangles(20, 256 * rate // 8000, rate)
    frequencies = np.linspace(0, rate / 2, triangles.shape[1])
    assert (
        powers.argmax(1) == triangles[:, np.abs(frequencies - 1000).argmin()].argmax()
    ).all()
    assert powers.shape == (100, 20)


def test_frames_span_a_recording_of_any_length():
    for length in (1, 150, 200, 201, 1200, 18000):
        samples = np.zeros(length, np.float32)
        samples[-1] = 1
        powers = log_mel(samples)
        assert powers.shape == (100, 10)
        assert powers[-1].min() > np.log(1e-10)  # the last sample is in the last frame
    silent = np.zeros(4000, np.float32)
    np.testing.assert_allclose(log_mel(silent), np.log(1e-10), rtol=1e-6)
    assert np.isfinite(mfcc(silent)).all()


def test_the_same_word_at_half_the_tempo_has_the_same_frames():
    envelope = np.hanning(4000)
    fast, slow = (
        np.sin(2 * np.pi * 700 * np.arange(n) / 8000)
        * np.interp(np.linspace(0, 3999, n), range(4000), envelope)
        for n in (2000, 4000)
    )
    middle = slice(20, 80)
    np.testing.assert_allclose(log_mel(fast)[middle, 4], log_mel(slow)[middle, 4], atol=0.35)


def test_samples_and_sizes_that_do_not_fit_are_refused():
    samples = np.zeros(1000, np.float32)
    with pytest.raises(
        ValueError, match=r"^mfcc: expected samples from -1 to 1, got no sample"
    ):
        mfcc(samples[:0])
    with pytest.raises(ValueError, match=r"^log_mel: .* got a sample that is not finite"):
        log_mel(np.array([0, np.nan], np.float32))
    with pytest.raises(
        ValueError, match=r"^mfcc: 26 bands give 1 to 26 coefficients, got coefficients=27"
    ):
        mfcc(samples, coefficients=27)
    with pytest.raises(
        ValueError, match=r"^log_mel: an FFT of 256 samples is too coarse for 100 bands"
    ):
        log_mel(samples, bands=100)
    for sizes in ({"frames": 0}, {"bands": 0}, {"width": 0.0}):
        with pytest.raises(
            ValueError, match=r"^log_mel: expected at least one frame of one sample"
        ):
            log_mel(samples, **sizes)


def test_rates_with_nothing_in_common_and_pipes_are_refused(tmp_path: Path):
    path = tmp_path / "some.wav"
    path.write_bytes(wav(NUMBERS, rate=999_983))  # a filter of 20 million numbers, for seven
    with pytest.raises(
        DataError,
        match=r"'some.wav' in .* has 999983 samples a second, which have too little in common with 8000",
    ):
        read_wav(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(
        DataError, match=r"'some.wav' in .* is a pipe or a device, where a file is expected"
    ):
        read_wav(path)
