"""Speech recognition: word errors of Whisper's greedy transcripts of read English."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np

import models
from benchmarks.study.tasks.base import CLEAN, Feed, Run, Runs, Score, Task, tidy
from calib.degrade import speech as degrade
from calib.metrics import Difference
from calib.metrics.words import WordErrors
from ir.errors import DataError
from ir.graph import Graph
from models import whisper, whisper_cross, whisper_decoder, whisper_encoder
from models.data import speech

PARTS = {"encoder": whisper_encoder, "cross": whisper_cross, "decoder": whisper_decoder}
NOISE = {"noise_20db": 20.0, "noise_10db": 10.0}
SPEED = {"fast": 1.2, "slow": 0.85}
TOKENS = 32
"""Tokens of a transcript, for counting what decoding reads from memory."""


class Transcripts(Task):
    """A sample is a clip; word error rate over all words of the clips."""

    figure: ClassVar[str] = "WER"
    higher: ClassVar[bool] = False

    @cached_property
    def graphs(self) -> dict[str, Graph]:
        return {name: tidy(models.capture(module)) for name, module in PARTS.items()}

    @property
    def binding(self) -> dict[str, dict[str, int]]:
        step = {"batch": 1, "tokens": 1, "past": TOKENS}
        return {"encoder": {"batch": 1}, "cross": {"batch": 1}, "decoder": step}

    def calibration(self, part: str, n: int, seed: int, mixed: float) -> list[Feed]:
        """Rows of spoken digits; the decoder is forced along the float model's transcripts."""
        waves = speech.utterances(n, part=0)
        if mixed:
            rng = np.random.default_rng(seed)
            noisy = rng.permutation(n)[: round(mixed * n)]
            waves = [degrade.add_noise(w, 15.0, rng) if i in noisy else w
                     for i, w in enumerate(waves)]  # fmt: skip
        features = [{"input_features": whisper_encoder.preprocess(wave)} for wave in waves]
        if part == "encoder":
            return features
        float_ = self.recogniser
        if part == "cross":
            states = [next(iter(float_.encoder(feed).values())) for feed in features]
            return [{"encoder_states": state} for state in states]
        said = [float_.transcribe(wave, TOKENS).tokens for wave in waves]
        return whisper.forced(float_, waves, said)

    @cached_property
    def recogniser(self) -> whisper.Recogniser:
        """The float model in ONNX Runtime."""
        import backends

        runs = {name: backends.build(graph, "ort").session(1).run
                for name, graph in self.graphs.items()}  # fmt: skip
        return recogniser(runs)

    def memory_io(self, stored: dict[str, int]) -> int:
        """Bytes read for one transcript of 32 tokens, see ir/analysis/traffic.py."""
        from ir.analysis.traffic import memory_io

        return memory_io(stored["encoder"] + stored["cross"], stored["decoder"], TOKENS)

    def score(self, runs: Runs, reference: Runs, n: int, condition: str, seed: int) -> Score:
        words, total = WordErrors(seed=seed), Difference()
        tested, float_ = recogniser(runs), recogniser(reference)
        for number, clip in enumerate(speech.readings()[:n]):
            wave = changed(clip.wave, condition, seed + number)
            features = whisper_encoder.preprocess(wave)
            cross = tested.listen(features)
            for name, wanted in float_.listen(features).items():
                total.add(wanted, cross[name])
            words.add(clip.text or "", tested.decode(cross).text)
        result = words.result()
        more = {"median WER": result.median, "loops": result.loops, "words": result.words}
        return Score(result.rate, result.low, result.high, total.result().sqnr_db, more)


def recogniser(runs: Runs) -> whisper.Recogniser:
    def plain(name: str) -> Run:
        return lambda feed: dict(runs[name](feed))

    return whisper.Recogniser(plain("encoder"), plain("cross"), plain("decoder"))  # type: ignore[arg-type]


def changed(wave: np.ndarray, condition: str, seed: int) -> np.ndarray:
    """The wave under a condition: noise at a ratio to the speech, or another speed."""
    if condition in NOISE:
        return degrade.add_noise(wave, NOISE[condition], np.random.default_rng(seed))
    if condition in SPEED:
        return degrade.change_speed(wave, SPEED[condition])
    if condition == CLEAN:
        return wave
    raise DataError(f"no condition is called '{condition}'", hint=", ".join([*NOISE, *SPEED]))
