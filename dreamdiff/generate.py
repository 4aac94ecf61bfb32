"""Images from EEG: whose EEG, one random generator per (trial, seed), PNG files that say how to make them again.

Shapes: N trials, C channels, T samples, H W pixels.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from PIL import Image, ImageDraw, PngImagePlugin

from eegprep import atomic
from eegprep.errors import CheckpointError, DataError, ModelError, StoreError, UsageError
from eegprep.recording import ProgressCallback, Recording
from eegprep.settings import build, fingerprint

from .config import GenerateConfig
from .latent_diffusion import make_scheduler
from .loop import mix
from .pairs import FORMAT as PAIRS_FORMAT
from .pairs import Pairs
from .pipeline import DreamDiffusionPipeline, SignalConfig

SIDECAR_VERSION = 1
SHEET_ROWS = 40  # trials on one contact sheet
SHEET_CELL = 128  # pixels
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class TrialSet:
    """EEG to generate from, wherever it comes from.

    source: as given by the person. kind: "pairs", "corpus" or "file". names, labels: for people.
    numbers: position of each trial in the source, which its random numbers depend on.
    read: positions in this set -> (n, C, T) float32 uV. seen: positions and size -> the images that were shown, if known.
    """

    source: str
    kind: str
    numbers: np.ndarray
    names: tuple[str, ...]
    labels: tuple[str | None, ...]
    read: Callable[[Sequence[int]], np.ndarray]
    seen: Callable[[Sequence[int], int], np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, positions: Sequence[int] | np.ndarray) -> TrialSet:
        """Some of the trials, in the given order."""
        chosen = [int(p) for p in positions]
        seen = self.seen
        return TrialSet(
            self.source, self.kind, self.numbers[chosen],
            tuple(self.names[p] for p in chosen), tuple(self.labels[p] for p in chosen),
            lambda at: self.read([chosen[int(p)] for p in at]),
            None if seen is None else (lambda at, size: seen([chosen[int(p)] for p in at], size)),
        )  # fmt: skip


@dataclass(frozen=True)
class GeneratedImage:
    """One image and how it came to be. trial: number in the source. row: its place in a batch of `batch_size`."""

    image: np.ndarray
    trial: int
    seed: int
    name: str
    label: str | None
    eeg_sha256: str
    row: int

    @property
    def stem(self) -> str:
        """File name without its ending."""
        return f"trial-{self.trial:06d}_seed-{self.seed}"


# ---------------------------------------------------------------------------------------------- whose EEG


def open_trials(
    source: str | Path, pipeline: DreamDiffusionPipeline, select: str | None = None, images: Path | None = None
) -> TrialSet:
    """Trials of a pairs store, windows of a corpus, or stretches after the events of an EEG file.

    Args:
        select: for pairs, a part of a split ("test", "block/val", ...) or None for all; for a corpus or a file, a label.
        images: folder of the image files of a pairs store, if they have moved.

    Raises:
        StoreError, DataError, ModelError: nothing there, or EEG of another shape, rate or unit than the model was trained with.
    """
    path = Path(source)
    if not path.exists():
        raise StoreError(f"{source}: there is no such store or file", "give a pairs store, a corpus, or an EEG file")
    kind = _store_format(path)
    if kind == PAIRS_FORMAT:
        return _pairs_trials(str(source), path, pipeline, select, images)
    if kind == "eegprep-corpus":
        return _corpus_trials(str(source), path, pipeline, select)
    if kind is not None or path.is_dir():
        raise StoreError(
            f"{source}: neither a pairs store nor a corpus (format {kind!r})", "give a pairs store, a corpus, or an EEG file"
        )
    return _file_trials(str(source), path, pipeline, select)


def _store_format(path: Path) -> str | None:
    try:
        return str(zarr.open_group(path, mode="r").attrs.get("format"))
    except (FileNotFoundError, ValueError, KeyError, NotADirectoryError, OSError):
        return None


def _pairs_trials(source: str, path: Path, pipeline: DreamDiffusionPipeline, select: str | None, images: Path | None) -> TrialSet:
    store = Pairs.open(path, images=images)
    check_shape(source, store.eeg_shape, pipeline)
    for subject in store.subjects:
        found = store.attributes[subject]
        check_signal(f"{source}, subject {subject}", found.get("sfreq"), found.get("unit", "uV"), pipeline)
    chosen = store if select in (None, "all") else store.select(split=select)
    if len(chosen) == 0:
        raise DataError(f"{source}: --select {select} leaves no trial", "choose another part of the split")
    names = tuple(f"{store.subjects[p]} trial {t}" for p, t in zip(chosen.person, chosen.trial, strict=True))
    labels = tuple(store.classes[label] for label in chosen.labels)
    return TrialSet(source, "pairs", np.asarray(chosen.indices), names, labels, lambda at: chosen.eeg(list(at)),
                    lambda at, size: chosen.images(list(at), size=size))  # fmt: skip


def _corpus_trials(source: str, path: Path, pipeline: DreamDiffusionPipeline, select: str | None) -> TrialSet:
    from eegprep.reader import Corpus

    corpus = Corpus.open(path)
    check_shape(source, (corpus.channels, corpus.samples), pipeline)
    for sfreq in sorted({float(value) for value in corpus.recordings["sfreq"]}):
        check_signal(source, sfreq, "uV", pipeline)
    labels = [None if value in (None, "") else str(value) for value in corpus.labels]
    keep = _with_label(labels, select, source)
    names = tuple(f"window {number}" for number in keep)
    return TrialSet(source, "corpus", keep, names, tuple(labels[n] for n in keep), lambda at: corpus.read(keep[list(at)]))


def _file_trials(source: str, path: Path, pipeline: DreamDiffusionPipeline, select: str | None) -> TrialSet:
    from eegprep.raws import read_file

    eeg_NCT, names, labels = cut_events(
        read_file(path), pipeline.details.signal, pipeline.encoder.config.channels, pipeline.encoder.config.window
    )
    keep = _with_label(labels, select, source)
    return TrialSet(
        source, "file", keep, tuple(names[n] for n in keep), tuple(labels[n] for n in keep), lambda at: eeg_NCT[keep[list(at)]]
    )


def _with_label(labels: Sequence[str | None], select: str | None, source: str) -> np.ndarray:
    keep = np.array([n for n, label in enumerate(labels) if select in (None, "all") or label == select], dtype=np.int64)
    if len(keep) == 0:
        known = sorted({label for label in labels if label})
        raise DataError(
            f"{source}: no trial has the label {select!r}", f"use one of: {', '.join(known[:20]) or 'none are labelled'}"
        )
    return keep


def cut_events(
    recording: Recording, signal: SignalConfig, channels: int, samples: int
) -> tuple[np.ndarray, list[str], list[str | None]]:
    """A window after every event, filtered, resampled and padded as the training pairs were.

    Args:
        recording: uV. signal: what the model was trained on. channels, samples: shape of a window.

    Returns:
        (n, channels, samples) float32 uV, a name and a label for each; events whose window leaves the recording are left out.
    """
    from eegprep.filters import band_pass, effective_band, resample
    from eegprep.windows import pad_channels

    if not recording.events:
        raise DataError(
            f"{recording.name}: has no events, so it is not known when an image was seen",
            "add annotations, or build a corpus and give that",
        )
    if signal.unit != "uV":
        raise ModelError(
            f"the model was trained on EEG in {signal.unit!r}, {recording.name} is in uV",
            "import the recording as pairs in that unit",
        )
    x_CT, sfreq = recording.signal_CT, recording.sfreq
    if signal.band is not None:
        band = effective_band(sfreq, *signal.band)
        assert band is not None
        x_CT = band_pass(x_CT, sfreq, band.low, band.high)
    if signal.sfreq is not None and signal.sfreq != sfreq:
        x_CT, sfreq = resample(x_CT, sfreq, signal.sfreq), signal.sfreq
    windows, names, labels = [], [], []
    for event in recording.events:
        first = round((event.onset + (signal.t0 or 0.0)) * sfreq)
        if first >= 0 and first + samples <= x_CT.shape[1]:
            windows.append(x_CT[:, first : first + samples])
            names.append(f"{event.label} at {event.onset:.3f} s")
            labels.append(event.label or None)
    if not windows:
        raise DataError(
            f"{recording.name}: none of {len(recording.events)} events is followed by {samples} samples at {sfreq:g} Hz",
            "use a recording that goes on after its events",
        )
    return pad_channels(np.stack(windows).astype(np.float32), channels), names, labels


def check_shape(source: str, found: tuple[int, int], pipeline: DreamDiffusionPipeline) -> None:
    """Raises ModelError when (channels, samples) is not what the encoder reads."""
    wanted = (pipeline.encoder.config.channels, pipeline.encoder.config.window)
    if tuple(found) != wanted:
        raise ModelError(
            f"{source}: windows of {found[0]} channels and {found[1]} samples, the model reads {wanted[0]} and {wanted[1]}",
            f"pad and crop with `eegprep pad --channels {wanted[0]} --window {wanted[1]}`, or train a model for this shape",
        )


def check_signal(source: str, sfreq: float | None, unit: str, pipeline: DreamDiffusionPipeline) -> None:
    """Raises ModelError when rate or unit are not those of the training pairs; unknown rates pass."""
    wanted = pipeline.details.signal
    if sfreq is not None and wanted.sfreq is not None and not math.isclose(sfreq, wanted.sfreq, rel_tol=1e-3):
        raise ModelError(
            f"{source}: sampled at {sfreq:g} Hz, the model was trained at {wanted.sfreq:g} Hz",
            f"resample to {wanted.sfreq:g} Hz first (eegprep filter --resample)",
        )
    if unit != wanted.unit and pipeline.encoder.config.scaling != "robust":
        raise ModelError(
            f"{source}: in {unit!r}, the model was trained on {wanted.unit!r}", "convert the EEG, or train on this unit"
        )


# ---------------------------------------------------------------------------------------------- images


def load_pipeline(model: str | Path, config: GenerateConfig) -> DreamDiffusionPipeline:
    """The pipeline of a run on the device, in the precision and with the scheduler of `config`."""
    pipeline = DreamDiffusionPipeline.from_pretrained(model, dtype=DTYPES[config.precision])
    pipeline.scheduler = make_scheduler(config.scheduler, pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    device = "cuda" if config.device == "auto" and torch.cuda.is_available() else "cpu"
    for part in (pipeline.unet, pipeline.vae, pipeline.encoder, pipeline.conditioner):
        part.to(device)
    return pipeline


def generator_for(trial: int, seed: int) -> torch.Generator:
    """The random numbers of one image: they depend on the trial's number and the seed, and on nothing else."""
    return torch.Generator().manual_seed(mix(trial, seed, "generate"))


def generate(
    pipeline: DreamDiffusionPipeline,
    trials: TrialSet,
    config: GenerateConfig,
    *,
    skip: Callable[[int, int], bool] | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[GeneratedImage]:
    """Images of all trials, sample by sample within a trial.

    Every batch has `config.batch_size` rows, the last one filled up by repeating its last row, so that the arithmetic is always
    of the same shape. Rows do not influence each other.

    Args:
        skip: (trial number, seed) -> whether that image exists; a batch of which all exist is not computed.
    """
    jobs = [(position, config.seed + k) for position in range(len(trials)) for k in range(config.samples)]
    for start in range(0, len(jobs), config.batch_size):
        batch = jobs[start : start + config.batch_size]
        if not (skip and all(skip(int(trials.numbers[position]), seed) for position, seed in batch)):
            yield from _make_batch(pipeline, trials, config, batch)
        if progress:
            progress(min(start + config.batch_size, len(jobs)), len(jobs), "images")


def _make_batch(
    pipeline: DreamDiffusionPipeline, trials: TrialSet, config: GenerateConfig, batch: Sequence[tuple[int, int]]
) -> Iterator[GeneratedImage]:
    positions = sorted({position for position, _ in batch})
    eeg_NCT = trials.read(positions)
    place = {position: row for row, position in enumerate(positions)}
    filled = [*batch, *[batch[-1]] * (config.batch_size - len(batch))]
    images = render(
        pipeline, eeg_NCT[[place[position] for position, _ in filled]],
        [generator_for(int(trials.numbers[position]), seed) for position, seed in filled], config,
    )  # fmt: skip
    for row, (position, seed) in enumerate(batch):
        yield GeneratedImage(
            images[row], int(trials.numbers[position]), seed, trials.names[position], trials.labels[position],
            array_sha256(eeg_NCT[place[position]]), row,
        )  # fmt: skip


def render(
    pipeline: DreamDiffusionPipeline, eeg_NCT: np.ndarray, generators: list[torch.Generator], config: GenerateConfig
) -> np.ndarray:
    """(n, H, W, 3) uint8, one image per EEG window and generator."""
    made = pipeline(
        eeg_NCT, num_inference_steps=config.steps, guidance_scale=config.guidance, generator=generators, output_type="np"
    ).images
    return (np.asarray(made) * 255).round().astype(np.uint8)


def array_sha256(array: np.ndarray) -> str:
    """SHA-256 of shape and values."""
    return hashlib.sha256(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


# ---------------------------------------------------------------------------------------------- on disk


def generate_to_folder(
    model: str | Path,
    eeg: str | Path,
    out: Path,
    config: GenerateConfig,
    *,
    select: str | None = None,
    trials: Sequence[int] | None = None,
    images: Path | None = None,
    progress: ProgressCallback | None = None,
) -> list[Path]:
    """Generate, write a PNG and a JSON sidecar per image and contact sheets; images that are there already are kept.

    Args:
        model: run of `dreamdiff train finetune` or pipeline folder. eeg, select, images: see `open_trials`.
        trials: numbers of trials in the source; default all that `select` leaves.

    Returns:
        The contact sheets.
    """
    pipeline = load_pipeline(model, config)
    chosen = open_trials(eeg, pipeline, select, images)
    if trials is not None:
        chosen = _numbered(chosen, trials)
    recipe = {"config": config.model_dump(mode="json", exclude={"samples", "seed"}), "model": pipeline.fingerprint}
    key = fingerprint(recipe)
    _need_space(out, len(chosen) * config.samples, pipeline.image_size)

    def there(trial: int, seed: int) -> bool:
        content = _sidecar_or_none(out / f"trial-{trial:06d}_seed-{seed}.json")
        return content is not None and content.get("fingerprint") == key and content.get("eeg", {}).get("source") == str(eeg)

    for image in generate(pipeline, chosen, config, skip=there, progress=progress):
        content = {
            "format": "dreamdiff-image", "version": SIDECAR_VERSION, "fingerprint": key, "trial": image.trial, "seed": image.seed,
            "name": image.name, "label": image.label, "image_sha256": array_sha256(image.image),
            "batch": {"size": config.batch_size, "row": image.row, "threads": torch.get_num_threads()},
            "config": config.model_dump(mode="json"),
            "model": {"path": str(model), "fingerprint": pipeline.fingerprint},
            "eeg": {"source": str(eeg), "kind": chosen.kind, "select": select, "sha256": image.eeg_sha256},
            "software": {name: metadata.version(name) for name in ("eeg-dreamdiff", "diffusers", "torch")},
        }  # fmt: skip
        write_png(out / f"{image.stem}.png", image.image, {"dreamdiff": f"{image.stem}.json"})
        atomic.write_json(out / f"{image.stem}.json", content)  # last: an image counts when its sidecar is there
    return contact_sheets(out, chosen, config)


def _numbered(trials: TrialSet, wanted: Sequence[int]) -> TrialSet:
    place = {int(number): position for position, number in enumerate(trials.numbers)}
    missing = [number for number in wanted if number not in place]
    if missing:
        raise UsageError(
            f"--trials names {missing[0]}, which is not among the {len(trials)} trials of {trials.source}",
            f"use numbers such as {', '.join(str(n) for n in trials.numbers[:5])}",
        )
    return trials.take([place[number] for number in wanted])


def replay(
    sidecar: Path, out: Path | None = None, *, model: str | None = None, eeg: str | None = None, images: Path | None = None
) -> tuple[Path, bool]:
    """Make the image of a sidecar again.

    Args:
        sidecar: JSON file beside a PNG. out: folder; default the sidecar's own.
        model, eeg: where they are now, if they have moved.

    Returns:
        The new PNG, and whether its pixels are the same as then.

    Raises:
        CheckpointError: the model is another one. DataError: the EEG is another.
    """
    content = _sidecar_or_none(sidecar)
    if content is None:
        raise CheckpointError(f"{sidecar}: not a sidecar of `dreamdiff generate`", "give the .json file beside an image")
    config = build(GenerateConfig, content["config"])
    pipeline = load_pipeline(model or content["model"]["path"], config)
    if pipeline.fingerprint != content["model"]["fingerprint"]:
        raise CheckpointError(
            f"{sidecar}: the image was made by model {content['model']['fingerprint'][:12]}, this is {pipeline.fingerprint[:12]}",
            "give the folder of that model with --model",
        )
    trials = open_trials(eeg or content["eeg"]["source"], pipeline, content["eeg"]["select"], images)
    trials = _numbered(trials, [int(content["trial"])])
    eeg_NCT = trials.read([0])
    found = array_sha256(eeg_NCT[0])
    if found != content["eeg"]["sha256"]:
        raise DataError(
            f"{sidecar}: the EEG of trial {content['trial']} has SHA-256 {found[:12]}, it was {content['eeg']['sha256'][:12]}",
            "give the store that the image was made from with --eeg",
        )
    size = int(content["batch"]["size"])
    generators = [generator_for(int(content["trial"]), int(content["seed"])) for _ in range(size)]
    image = render(pipeline, np.repeat(eeg_NCT, size, axis=0), generators, config)[int(content["batch"]["row"])]
    target = (out or sidecar.parent) / f"{sidecar.stem}.replay.png"
    write_png(target, image, {"dreamdiff": sidecar.name})
    return target, array_sha256(image) == content["image_sha256"]


def _sidecar_or_none(file: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("format") != "dreamdiff-image" or content.get("version") != SIDECAR_VERSION:
        return None
    return content


def write_png(file: Path, image_HWC: np.ndarray, notes: dict[str, str]) -> None:
    """A PNG with text notes in it, whole or not at all."""
    info = PngImagePlugin.PngInfo()
    for name, text in notes.items():
        info.add_text(name, text)
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, format="PNG", pnginfo=info)
    atomic.write_bytes(file, buffer.getvalue())


def contact_sheets(out: Path, trials: TrialSet, config: GenerateConfig) -> list[Path]:
    """One row per trial: the image that was seen, if known, then the generated ones, with the label above."""
    sheets = []
    for number, start in enumerate(range(0, len(trials), SHEET_ROWS)):
        rows = [_sheet_row(out, trials, position, config) for position in range(start, min(start + SHEET_ROWS, len(trials)))]
        file = out / ("contact-sheet.png" if number == 0 else f"contact-sheet-{number + 1}.png")
        write_png(file, np.concatenate(rows), {})
        sheets.append(file)
    return sheets


def _sheet_row(out: Path, trials: TrialSet, position: int, config: GenerateConfig) -> np.ndarray:
    cells = [] if trials.seen is None else [("seen", Image.fromarray(trials.seen([position], SHEET_CELL)[0]))]
    stem = f"trial-{int(trials.numbers[position]):06d}_seed-"
    for k in range(config.samples):
        with Image.open(out / f"{stem}{config.seed + k}.png") as image:
            cells.append(
                (f"seed {config.seed + k}", image.convert("RGB").resize((SHEET_CELL, SHEET_CELL), Image.Resampling.NEAREST))
            )
    gap, head = 4, 28
    row = Image.new("RGB", (len(cells) * (SHEET_CELL + gap) + gap, SHEET_CELL + head + gap), "white")
    draw = ImageDraw.Draw(row)
    title = f"{trials.names[position]}{': ' + str(trials.labels[position]) if trials.labels[position] else ''}"
    draw.text((gap, 2), title, fill="black")
    for column, (text, cell) in enumerate(cells):
        x = gap + column * (SHEET_CELL + gap)
        draw.text((x, 14), text, fill="grey")
        row.paste(cell, (x, head))
    return np.asarray(row)


def _need_space(out: Path, images: int, size: int) -> None:

    folder = next(parent for parent in (out.resolve(), *out.resolve().parents) if parent.exists())
    wanted, free = images * size * size * 3, shutil.disk_usage(folder).free
    if free < wanted:
        raise StoreError(
            f"{out}: {images} images may need {wanted / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free",
            "free disk space, generate fewer images, or choose another --out",
        )
