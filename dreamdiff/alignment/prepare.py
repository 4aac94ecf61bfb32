"""Prepares an alignment: finds the encoder, whitens people, encodes images once, builds the task, trains it."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from dreamdiff.alignment.config import AlignConfig
from dreamdiff.alignment.data import AlignData, dealt_again, fit_front, front_config, hold, person_numbers
from dreamdiff.alignment.model import AlignedConfig, AlignedEncoder, ExternalTokens, Head, TargetSpace, VectorEncoder
from dreamdiff.alignment.targets import image_vectors, load_target
from dreamdiff.alignment.task import AlignTask
from dreamdiff.alignment.tuning import choose_what_trains
from dreamdiff.devices import choose_device, resolved_precision
from dreamdiff.eeg_input import SignalConfig
from dreamdiff.encoders.encoder import encoder_preset
from dreamdiff.encoders.frontend import FrontEndConfig
from dreamdiff.encoders.kinds import build_encoder, encoder_class, encoder_prefix
from dreamdiff.encoders.library import network_class
from dreamdiff.encoders.weights import config_section, load_module, signal_section, weights_digest
from dreamdiff.lineage.seen import Entry, read_seen, seen_by_outsider, seen_in_pairs
from dreamdiff.pairs.image_cache import default_cache
from dreamdiff.pairs.reader import Pairs
from dreamdiff.run_folder import read_config, weights_folder
from dreamdiff.training.loop import fit
from dreamdiff.training.task import FitResult, mix
from eegprep.errors import ModelError, UsageError
from eegprep.recording import ProgressCallback
from eegprep.settings import suggest

OWN = ("conv", "positions", "nice", "atm-s", "enigma")  # kinds of encoders that `--encoder` names by themselves
DEFAULT_RATE = 128.0  # Hz, where the encoder names none: responses to pictures have little above 40 Hz


def align(
    pairs: str | Path | Pairs,
    out: str | Path,
    config: AlignConfig | None = None,
    *,
    encoder: str | VectorEncoder = "conv",
    targets: Sequence[str] = ("embedded",),
    progress: ProgressCallback | None = None,
    offline: bool = False,
    strict_rate: bool = False,
) -> FitResult:
    """Align and write an `AlignedEncoder` into `out`; run again with the same arguments to continue.

    Args:
        pairs: store of EEG-image pairs.
        encoder: `conv`, `msm:RUN` (any folder with an encoder), `random:PRESET`, `braindecode:NAME`, or an object with `encode(eeg)` -> vectors.
        targets: image encoders, see `alignment.targets`; the first one is what `encode` gives by default.
        offline: refuse to download.
        strict_rate: refuse people at several sampling rates, who are brought to the most common one otherwise.
    """
    config = config or AlignConfig()
    task = prepare(
        pairs, Path(out), config, encoder=encoder, targets=targets, progress=progress, offline=offline, strict_rate=strict_rate
    )
    return fit(task, config.loop, config.optim, Path(out), progress=progress)


def prepare(
    pairs: str | Path | Pairs, out: Path, config: AlignConfig, *, encoder: str | VectorEncoder = "conv",
    targets: Sequence[str] = ("embedded",), progress: ProgressCallback | None = None, offline: bool = False,
    strict_rate: bool = False,
) -> AlignTask:  # fmt: skip
    """Load, check and cache everything that training needs, cheapest checks first.

    Raises:
        ModelError, DataError, CheckpointError, StoreError, UsageError: what does not fit, before time is spent.
    """
    start = find_encoder(encoder)
    store = pairs if isinstance(pairs, Pairs) else Pairs.open(pairs)
    store, compared = store.at_model_rate(SignalConfig(), strict=strict_rate)
    parts = store.parts(config.split, judged_by=None if config.select == "last" else config.select)
    front = front_config(store, config.front, rate=start.rate, patch=start.patch)
    section = start.section_for(front)
    numbers, row = images_of(store, np.concatenate([parts["train"], parts["val"]]))
    spaces, vectors, remarks = load_vectors(store, numbers, targets, config, out, progress, offline)
    remarks = [*compared, *remarks]
    if config.permute_pictures:
        remarks.append("a control: the pictures of training trials are permuted within each person, so there is nothing to learn")
    people = tuple(name for number, name in enumerate(store.subjects) if (store.person[parts["train"]] == number).any())
    training = {
        "pairs": store.fingerprint, "pairs_content": store.content_sha256, "provenance": store.provenance, "licence": store.licence, "split": config.split,
        "select": config.select, "encoder": start.name, "classes": len(store.classes), "labels": config.labels,
        "labels_seed": config.labels_seed, "permuted": config.permute_pictures, "seen": [*start.seen, seen_in_pairs(store, parts["train"])],
    }  # fmt: skip
    shape = AlignedConfig(
        front=front, encoder=section, people=people, maps=config.maps, targets=spaces, dropout=config.dropout, training=training
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(config.loop.seed, "new layers"))
        model = AlignedEncoder(shape, start.build(section, front.channels, front.window))
        choose_what_trains(model, "frozen" if start.external is not None else config.tune, config.lora_rank)
    model.to(choose_device(config.loop.device))
    fit_front(model.front, store, parts["train"])
    if config.labels is not None:
        parts = {**parts, "train": few_labels(store, parts["train"], config.labels, config.labels_seed)}
    measure_targets(model, vectors, row, store.image[parts["train"]])
    data = align_data(store, parts, row, vectors, model, config, progress)
    identity = {
        "task": "align", "config": identity_of(config), "pairs": store.fingerprint, "pairs_content": store.content_sha256,
        "encoder": start.digest,
        "targets": [space.model_dump() for space in spaces],
    }  # fmt: skip
    return AlignTask(config, data, model, identity, out, remarks)


def images_of(pairs: Pairs, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the images of these trials, and image number -> row among them (-1 for all others, which are never read)."""
    numbers = np.unique(pairs.image[positions])
    row = np.full(len(pairs.image_sha256), -1)
    row[numbers] = np.arange(len(numbers))
    return numbers, row


def load_vectors(
    pairs: Pairs, numbers: np.ndarray, targets: Sequence[str], config: AlignConfig, out: Path,
    progress: ProgressCallback | None, offline: bool,
) -> tuple[tuple[TargetSpace, ...], tuple[torch.Tensor, ...], list[str]]:  # fmt: skip
    """Spaces, vectors (M, D) of these images, and remarks; one image encoder at a time is in memory."""
    if not targets or len(set(targets)) < len(targets):
        raise UsageError(f"--target is given as {list(targets)}", "name at least one target, each of them once")
    root = Path(config.cache) if config.cache else default_cache(pairs.path, out)
    device = choose_device(config.loop.device)
    precision = resolved_precision(config.loop.precision, device)
    spaces, vectors, remarks = [], [], []
    for name in targets:
        target = load_target(name, device=device, precision=precision, offline=offline)
        result = image_vectors(pairs, numbers, target, root, progress)
        spaces.append(target.space(result.shape[1]))
        vectors.append(torch.from_numpy(result))
        remarks += list(target.remarks)
        del target
        # transformers' modules hold cycles, and two image encoders at once may not fit
        gc.collect()
    return tuple(spaces), tuple(vectors), remarks


def measure_targets(model: AlignedEncoder, vectors: Sequence[torch.Tensor], row: np.ndarray, image_N: np.ndarray) -> None:
    """Mean and spread of the training images in every target's space."""
    rows = torch.from_numpy(row[np.unique(image_N)])
    for head, of_target in zip(model.heads, vectors, strict=True):
        cast(Head, head).measure(of_target[rows])


def align_data(
    pairs: Pairs, parts: Mapping[str, np.ndarray], row: np.ndarray, vectors: tuple[torch.Tensor, ...], model: AlignedEncoder,
    config: AlignConfig, progress: ProgressCallback | None = None,
) -> AlignData:  # fmt: skip
    """Training and validation trials behind the model's front end, in memory where they fit."""
    person = person_numbers(pairs, model.front.people)
    read = np.unique(np.concatenate([parts["train"], parts["val"]]))
    held, held_row = hold(pairs, read, model.front, person, progress)
    shown = pairs.image
    if config.permute_pictures:
        shown = dealt_again(pairs.image, pairs.person, parts["train"], mix(config.loop.seed, "permuted pictures"))
    return AlignData(pairs, parts, row, vectors, model.front, person, shown, held, held_row)


def few_labels(pairs: Pairs, train: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At most `count` trials of each category and person."""
    rng = np.random.default_rng(seed)
    _, cell = np.unique(np.stack([pairs.person[train], pairs.labels[train]]), axis=1, return_inverse=True)
    cell = cell.reshape(-1)
    kept = [rng.permutation(train[cell == number])[:count] for number in range(int(cell.max(initial=-1)) + 1)]
    return np.sort(np.concatenate(kept))


def learned_from(model: AlignedEncoder, pairs: Pairs, train: np.ndarray) -> np.ndarray:
    """Training trials whose pictures the model was given, where this is the store it learned from last; else all of `train`.

    Closed forms that stand beside the model get the same trials.
    """
    training = model.config.training
    last = cast("Sequence[Mapping[str, Any]]", training.get("adapted") or [training])[-1]
    if last.get("pairs") != pairs.fingerprint or last.get("pairs_content", pairs.content_sha256) != pairs.content_sha256:
        return train
    if "trial_numbers" in last:
        return np.intersect1d(train, np.flatnonzero(np.isin(pairs.indices, last["trial_numbers"])))
    labels = last.get("labels")
    return train if labels is None else few_labels(pairs, train, int(labels), int(last.get("labels_seed", 0)))


def identity_of(config: AlignConfig) -> Mapping[str, Any]:
    """The configuration without what may change when a run is continued."""
    exclude: Any = {"loop": True, "optim": True, "cache": True, "validate_trials": True, "keep_epochs_mb": True}
    return config.model_dump(mode="json", exclude=exclude)


# ------------------------------------------------------------------------------------- which encoder


@dataclass(frozen=True)
class EncoderStart:
    """An encoder that was asked for, before its shape is known.

    name: as asked. digest: what identifies it for a run. rate: Hz it was made for. patch: samples of a token.
    section: its configuration without channels and window. folder: where its weights are. channels: that the weights need.
    seen: what it was trained on before (`lineage.seen`).
    """

    name: str
    digest: str
    section: Mapping[str, Any]
    rate: float = DEFAULT_RATE
    patch: int = 1
    folder: Path | None = None
    channels: int | None = None
    external: VectorEncoder | None = None
    seen: Sequence[Entry] = ()

    def section_for(self, front: FrontEndConfig) -> dict[str, object]:
        """The configuration for what the front end gives.

        Raises:
            ModelError: the weights need another number of channels.
        """
        if self.external is not None:
            return {"kind": "external"}
        if self.channels not in (None, front.channels):
            raise ModelError(
                f"--encoder {self.name} reads {self.channels} channels, the trials have {front.channels}",
                "pre-train on windows of that many channels, or use --encoder conv",
            )
        rate = {"sfreq": front.rate} if self.section.get("kind") == "braindecode" else {}
        return {**self.section, "channels": front.channels, "window": front.window, **rate}

    def build(self, section: Mapping[str, Any], channels: int, window: int) -> nn.Module:
        """The encoder with its weights: pre-trained ones if there are any, else fresh ones."""
        if self.external is not None:
            return ExternalTokens(self.external, channels, window)
        if self.folder is None:
            return build_encoder(section)
        derived = getattr(encoder_class(str(section.get("kind", "paper"))), "derived", ())
        return load_module(lambda: build_encoder(section), self.folder, encoder_prefix(read_config(self.folder)), derived)


def find_encoder(source: str | VectorEncoder) -> EncoderStart:
    """What `--encoder` names.

    Raises:
        UsageError: an unknown name. CheckpointError: a folder without an encoder.
    """
    if not isinstance(source, str):
        name = type(source).__name__
        outside = [seen_by_outsider(name, source)]
        return EncoderStart(name, f"external:{type(source).__qualname__}", {}, external=source, seen=outside)
    kind, _, rest = source.partition(":")
    if kind == "random" and rest:
        shape = encoder_preset(rest, "none").model_dump()
        return EncoderStart(source, source, shape, patch=shape["patch"])
    if kind == "braindecode" and rest:
        network_class(rest)
        return EncoderStart(source, source, {"kind": "braindecode", "model": rest})
    if source in OWN:
        kind_class = encoder_class(source)
        rate = float(getattr(kind_class, "rate", DEFAULT_RATE))
        return EncoderStart(source, source, kind_class.Config().model_dump(exclude={"channels", "window"}), rate)
    if kind == "msm" and rest:
        return _folder_start(source, Path(rest).expanduser())
    if Path(source).expanduser().is_dir():
        return _folder_start(source, Path(source).expanduser())
    raise UsageError(
        f"there is no encoder {source!r}{suggest(source, OWN)}",
        f"use one of: {', '.join(OWN)}, msm:RUN, random:PRESET, braindecode:NAME, or a folder with an encoder",
    )


def _folder_start(name: str, folder: Path) -> EncoderStart:
    source = weights_folder(folder)
    content = read_config(source)
    section = dict(config_section(content, "encoder", source))
    if "scaling" in section:
        section["scaling"] = "none"  # the front end has brought everybody to a standard deviation of 1
    rate = float(content.get("front", {}).get("rate") or signal_section(content).sfreq or DEFAULT_RATE)
    channels, patch = section.pop("channels", None), int(section.get("patch", 1))
    section.pop("window", None)
    return EncoderStart(name, weights_digest(source), section, rate, patch, source, channels, seen=read_seen(source))
