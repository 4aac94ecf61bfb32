"""Pre-training by masked signal modelling: a corpus and a configuration in, a run folder out.

Shapes: N windows, B batch, C channels, T samples, L tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamdiff.encoders.encoder import robust_scale
from dreamdiff.encoders.mae import MaskedSignalModel
from dreamdiff.lineage.seen import seen_in_corpus, write_seen
from dreamdiff.pretraining import reconstruction
from dreamdiff.pretraining.config import Augmentation, PretrainConfig, PretrainData
from dreamdiff.pretraining.order import held_out
from dreamdiff.pretraining.reconstruction import Score
from dreamdiff.pretraining.signal import signal_of_corpus
from dreamdiff.pretraining.stream import WindowStream
from dreamdiff.run_folder import CONFIG_FILE
from dreamdiff.training.loop import fit
from dreamdiff.training.task import Batch, Draw, FitResult, Stream, Task
from eegprep import atomic
from eegprep.corpus.reader import Corpus
from eegprep.errors import DataError, ModelError
from eegprep.recording import ProgressCallback
from eegprep.settings import current_form
from eegprep.signals.spectra import spread

SCALE_WINDOWS = 16  # ours: so many windows, evenly spread, measure the amplitude of a recording

PICTURE_CHANNELS = 6


def pretrain(
    store: str | Path, out: str | Path, config: PretrainConfig, progress: ProgressCallback | None = None, *,
    strict_rate: bool = False,
) -> FitResult:  # fmt: skip
    """Pre-train on a corpus, or continue the run in `out`.

    Args:
        store: the corpus.
        out: run folder: config.json and model.safetensors at the end; checkpoints, history.jsonl, pictures on the way.
        config: see `PretrainConfig`.
        progress: called with (steps done, steps in all, message).
        strict_rate: refuse a corpus of several sampling rates; the model keeps them all otherwise (`config.json`, `signal`).
    """
    # the caller's generator stays as it was
    with torch.random.fork_rng():
        torch.manual_seed(config.loop.seed)
        model = MaskedSignalModel(config.model)
    task = Pretraining(model, Corpus.open(str(store)), config, strict_rate=strict_rate)
    return fit(task, config.loop, config.optim, Path(out), progress=progress)


class Pretraining(Task[MaskedSignalModel]):
    """Masked signal modelling as a task for the loop."""

    name = "msm"

    def __init__(self, model: MaskedSignalModel, corpus: Corpus, config: PretrainConfig, *, strict_rate: bool = False) -> None:
        encoder = config.model.encoder
        if (corpus.channels, corpus.samples) != (encoder.channels, encoder.window):
            raise ModelError(
                f"windows of {corpus.url} are ({corpus.channels}, {corpus.samples}), the model takes "
                f"({encoder.channels}, {encoder.window})",
                f"--set model.encoder.channels={corpus.channels} --set model.encoder.window={corpus.samples}",
            )
        self.module = self.model = model
        self._loss: Callable[..., Tensor] = model.loss
        self.config, self.corpus = config, corpus
        model.set_gradient_checkpointing(config.gradient_checkpointing)
        train, self.held_out, self.split = split_corpus(corpus, config.data)
        self.train = corpus.take(train)
        model.encoder.signal = signal_of_corpus(self.train, strict_rate)
        self.valid = (
            corpus.take(self.held_out[spread(len(self.held_out), config.data.validation_windows)]) if len(self.held_out) else None
        )
        robust = encoder.scaling == "robust"
        self.scale_train = recording_scales(self.train) if robust else None
        self.scale_valid = recording_scales(self.valid) if robust and self.valid is not None else None
        self.last_score: Score | None = None
        self.seen = seen_in_corpus(self.train)

    def identity(self) -> Mapping[str, Any]:
        """The configuration and the windows."""
        return {
            "task": self.name,
            **_learned(self.config.model_dump(mode="json")),
            "store": {"content": self.corpus.identity, "windows": len(self.corpus)},
        }

    def compile(self) -> None:
        # the whole of it, masking and loss included: on a CPU 1.55 times the timm build's rate at `tiny`, 1.33 with blocks alone
        self._loss = torch.compile(self.model.loss)

    def current_identity(self, stored: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Task`; settings lie at the top."""
        settings = {key: value for key, value in stored.items() if key in PretrainConfig.model_fields}
        return {**stored, **_learned(current_form(PretrainConfig, settings))}

    def stream(self, rank: int, world_size: int) -> Stream:
        data = self.config.data
        return WindowStream(
            self.train,
            data.batch_size,
            seed=self.config.loop.seed,
            rank=rank,
            world_size=world_size,
            weights=data.weights,
            prefetch=data.prefetch,
        )

    def host(self, batch: Batch) -> Batch:
        return batch if self.scale_train is None else {**batch, "scale": self.scale_train[batch["index"]]}

    def step(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        eeg_BCT = augment(batch["eeg"], self.config.augment, draw)
        noise_BL = draw.uniform("mask", self.model.config.encoder.tokens)
        return {"loss": self._loss(eeg_BCT, noise=noise_BL, scale_B=batch.get("scale"))}

    def validate(self, device: torch.device) -> dict[str, float]:
        if self.valid is None:
            return {}
        self.last_score = score_windows(self.model, self.valid, self.scale_valid, device, self.config.data.batch_size)
        return self.last_score.summary()

    def describe(self, folder: Path) -> None:
        atomic.write_json(folder / CONFIG_FILE, self.model.config_content())
        write_seen(folder, [self.seen])

    def export(self, run_dir: Path) -> None:
        write_seen(run_dir, [self.seen])
        self.model.save_pretrained(run_dir)

    def pictures(self, run_dir: Path, device: torch.device) -> None:
        corpus, scales = (self.train, self.scale_train) if self.valid is None else (self.valid, self.scale_valid)
        draw_reconstruction(self.model, corpus, scales, device, run_dir / "reconstruction.png")
        if self.last_score is not None:
            by_band = self.last_score.correlations()
            names = source_channels(corpus, 0)
            reconstruction.correlations(by_band, names, run_dir / "correlation.png")
            table = {band: dict(zip(names, map(float, values), strict=False)) for band, values in by_band.items()}
            atomic.write_json(run_dir / "validation.json", {**self.last_score.summary(), "split": self.split, "channels": table})


def split_corpus(corpus: Corpus, data: PretrainData) -> tuple[np.ndarray, np.ndarray, dict[str, object]]:
    """Indices to train on, indices held out, and what was held out, in words."""
    table = corpus.subjects
    kind = data.validation
    recording_N = recording_names(corpus)
    if kind == "auto":
        kind = "person" if table["person"].nunique() > 1 else "recording" if len(set(recording_N)) > 1 else "none"
    everything = np.arange(len(corpus))
    if kind == "none":
        return everything, everything[:0], {"held_out": "nothing"}
    if kind == "person":
        person_of = dict(zip(table["dataset"] + "/" + table["subject"], table["person"], strict=True))
        name_N = np.array([person_of[key] for key in corpus.keys], object)[corpus.group_of(everything)]
    else:
        name_N = recording_N
    if len(set(name_N)) < 2:
        raise DataError(f"{corpus.url}: one {kind} cannot be split into training and validation", "set data.validation to none")
    out = held_out(list(set(name_N)), data.validation_share, data.split_seed)
    chosen_N = np.isin(name_N.astype(str), out)
    return everything[~chosen_N], everything[chosen_N], {"held_out": kind, "names": sorted(out)}


def recording_names(corpus: Corpus) -> np.ndarray:
    """`dataset/subject#number` of every window's recording."""
    keys = np.array(corpus.keys, object)[corpus.group_of(np.arange(len(corpus)))]
    return np.array([f"{key}#{number}" for key, number in zip(keys, corpus.column("recording"), strict=True)], object)


def recording_scales(corpus: Corpus) -> Tensor:
    """Robust standard deviation of the recording that each window came from, uV: (N,).

    The median over up to 16 windows of the recording, evenly spread, each measured by `encoder.robust_scale`.
    """
    _, which_N = np.unique(recording_names(corpus).astype(str), return_inverse=True)
    scales_N = torch.empty(len(corpus))
    for number in range(which_N.max(initial=-1) + 1):
        members = np.flatnonzero(which_N == number)
        measured = robust_scale(torch.from_numpy(corpus.read(members[spread(len(members), SCALE_WINDOWS)])))
        # the median: one window with an artefact must not set the scale of a recording
        scales_N[torch.from_numpy(members)] = measured.median()
    return scales_N


def rolled(eeg_BCT: Tensor, shift_B: Tensor) -> Tensor:
    """Each window moved in time by its own number of samples, round the ends; the numbers stay on the device."""
    samples = eeg_BCT.shape[-1]
    index_BT = (torch.arange(samples, device=eeg_BCT.device) - shift_B[:, None]) % samples
    return eeg_BCT.gather(-1, index_BT[:, None].expand_as(eeg_BCT))


def augment(eeg_BCT: Tensor, config: Augmentation, draw: Draw) -> Tensor:
    """Shift, reverse and amplify windows as configured; the windows themselves when all is off."""
    if config.shift:
        shift_B = draw.integers("shift", 2 * config.shift + 1) - config.shift
        eeg_BCT = rolled(eeg_BCT, shift_B)
    if config.reverse:
        back_B = draw.uniform("reverse") < config.reverse
        eeg_BCT = torch.where(back_B[:, None, None], eeg_BCT.flip(-1), eeg_BCT)
    if config.gain:
        eeg_BCT = eeg_BCT * (config.gain * draw.normal("gain")).exp()[:, None, None]
    return eeg_BCT


@torch.no_grad()
def score_windows(
    model: MaskedSignalModel, corpus: Corpus, scale_N: Tensor | None, device: torch.device, batch_size: int = 64
) -> Score:
    """Judge the model on all windows of `corpus`, each with masking noise that depends on its index only."""
    score = Score()
    for first in range(0, len(corpus), batch_size):
        index_B = np.arange(first, min(first + batch_size, len(corpus)))
        eeg_BCT = torch.from_numpy(corpus.read(index_B)).to(device)
        # seed 0 whatever the run's: held-out losses of two runs hide the same tokens
        noise_BL = Draw(0, 0, torch.from_numpy(index_B), device).uniform("validation mask", model.config.encoder.tokens)
        scale_B = None if scale_N is None else scale_N[index_B].to(device)
        output = model(eeg_BCT, noise=noise_BL, scale_B=scale_B)
        prediction, target, mask = (t.float().cpu().numpy() for t in (output.prediction, output.target, output.mask))
        score.add(prediction, target, mask, np.array([corpus.record(int(i))["sfreq"] for i in index_B]))
    return score


@torch.no_grad()
def draw_reconstruction(
    model: MaskedSignalModel, corpus: Corpus, scale_N: Tensor | None, device: torch.device, file: Path, index: int | None = None
) -> None:
    """Picture of one window: original, what was hidden, what was rebuilt."""
    chosen = len(corpus) // 2 if index is None else index
    record = corpus.record(chosen)
    eeg_BCT = torch.from_numpy(corpus.read([chosen])).to(device)
    noise_BL = Draw(0, 0, torch.tensor([chosen]), device).uniform("validation mask", model.config.encoder.tokens)
    scale_B = None if scale_N is None else scale_N[[chosen]].to(device)
    output = model(eeg_BCT, noise=noise_BL, scale_B=scale_B)
    names = source_channels(corpus, chosen)
    shown = spread(len(names), PICTURE_CHANNELS)
    reconstruction.reconstruction(
        output.target[0].float().cpu().numpy()[shown],
        output.prediction[0].float().cpu().numpy()[shown],
        output.mask[0].cpu().numpy(),
        [names[i] for i in shown],
        float(record["sfreq"]),
        file,
    )


def source_channels(corpus: Corpus, index: int) -> list[str]:
    """Names of the channels a window really has, before padding repeats them."""
    record = corpus.record(index)
    names = [record["channels"][source] for source in record["pad_map"][: record["n_channels"]] if source >= 0]
    return [name.rstrip(".") for name in names]  # EDF files of eegmmidb fill names up with dots


LEARNED = 0.97  # ours: a run that sits at the mean of all windows comes within a few thousandths of the visible mean's loss


def has_learned(validation: Mapping[str, float]) -> bool:
    """Whether held-out loss is below that of both predictors that learn nothing; also without held-out windows, where nobody knows."""
    compared = against_guess(validation)
    return compared is None or compared[0] < LEARNED * compared[1]


def against_guess(validation: Mapping[str, float]) -> tuple[float, float] | None:
    """Held-out loss, and that of the best predictor that learns nothing; None without held-out windows."""
    if "error_hidden" in validation:  # in units of the target's variance: a constant guess has 1
        return validation["error_hidden"], 1.0
    if "loss" not in validation:
        return None
    return validation["loss"], min(validation["loss_visible_mean"], validation["loss_interpolation"])


def read_validation(run_dir: Path) -> Mapping[str, Any]:
    """validation.json of a run."""
    return json.loads((run_dir / "validation.json").read_text(encoding="utf-8"))


def _learned(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings that decide what is learned, besides those that the loop keeps itself."""
    data = {key: value for key, value in config["data"].items() if key not in ("prefetch", "validation_windows")}
    return {**{key: value for key, value in config.items() if key not in ("loop", "optim")}, "data": data}
