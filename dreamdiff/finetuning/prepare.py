"""Prepares a fine-tuning run: loads the parts, encodes images once, builds the task, trains it."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch

from dreamdiff.alignment.model import AlignedEncoder, fronted_encoder
from dreamdiff.devices import choose_device, fitting_batch, mixed, place_of, resolved_precision
from dreamdiff.diffusion.clip import BYTES_OF_IMAGE, ClipTarget, load_clip
from dreamdiff.diffusion.stable_diffusion import StableDiffusion, load_stable_diffusion, vae_factor
from dreamdiff.eeg_input import CapConfig, signal_of
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.encoders.weights import weights_digest
from dreamdiff.finetuning.config import FinetuneConfig
from dreamdiff.finetuning.data import TrainingData, image_moments
from dreamdiff.finetuning.linear_start import Texts, adapter_for
from dreamdiff.finetuning.plan import finetune_plan
from dreamdiff.finetuning.task import FinetuneTask, learned_settings
from dreamdiff.lineage.seen import Entry, read_seen
from dreamdiff.pairs.encoding import read_each, shared_rows
from dreamdiff.pairs.image_cache import CachedRows, PlannedRows, default_cache, planned_rows, shared_cache
from dreamdiff.pairs.images import SQUARE
from dreamdiff.pairs.reader import Pairs
from dreamdiff.run_folder import is_aligned, weights_folder
from dreamdiff.training.loop import fit
from dreamdiff.training.task import FitResult
from eegprep.errors import ModelError
from eegprep.folders import require_free
from eegprep.provenance import sha256
from eegprep.recording import ProgressCallback

VAE_BYTES_OF_PIXEL = 3000  # activations of Stable Diffusion's encoder in fp32, with room


def finetune(
    pairs: str | Path,
    encoder: str,
    sd: str,
    clip: str,
    out: Path,
    config: FinetuneConfig,
    *,
    progress: ProgressCallback | None = None,
    offline: bool = False,
    strict_rate: bool = False,
) -> FitResult:
    """Fine-tune and write `out/pipeline`; run again with the same arguments to continue.

    Args:
        pairs: store of EEG-image pairs. encoder: run of `dreamdiff train msm`, encoder folder, or `random:PRESET` for none.
        sd, clip: see `load_stable_diffusion` and `load_clip`. offline: refuse to download.
        strict_rate: refuse trials of another sampling rate than the encoder's, see `dreamdiff.rates`.
    """
    task = prepare(pairs, encoder, sd, clip, out, config, progress=progress, offline=offline, strict_rate=strict_rate)
    return fit_task(task, progress=progress)


def fit_task(task: FinetuneTask, *, progress: ProgressCallback | None = None) -> FitResult:
    """Train what `prepare` made, to its end."""
    return fit(task, task.config.loop, task.config.optim, task.run_dir, progress=progress)


def prepare(
    pairs: str | Path,
    encoder: str,
    sd: str,
    clip: str,
    out: Path,
    config: FinetuneConfig,
    *,
    progress: ProgressCallback | None = None,
    offline: bool = False,
    dry_run: bool = False,
    strict_rate: bool = False,
) -> FinetuneTask:
    """Load, check and cache everything that training needs, cheapest checks first.

    Args:
        dry_run: load and check only: no image is encoded and nothing is written; `task.plan` says what would be, and the task
            cannot be trained.
        strict_rate: see `finetune`.

    Raises:
        ModelError, DataError, CheckpointError, StoreError: what does not fit, before time is spent.
    """
    eeg_encoder = load_encoder(encoder)
    store, compared = compared_with_encoder(Pairs.open(pairs), eeg_encoder, strict_rate)
    check_eeg(store, eeg_encoder)
    select = config.validation.select
    parts = store.parts(config.data.split, judged_by=None if select == "last" else select)
    root = Path(config.data.cache) if config.data.cache else default_cache(store.path, out)
    numbers = np.unique(store.image[np.concatenate([parts["train"], parts["val"]])])  # images of test trials are never read
    row = np.full(len(store.image_sha256), -1)
    row[numbers] = np.arange(len(numbers))
    remarks: list[str] = list(compared)
    clip_vectors, clip_key, texts, adapter = None, "none", None, None
    device = choose_device(config.loop.device)
    precision = resolved_precision(config.loop.precision, device)
    if wants_clip(config):
        target = load_clip(clip, offline=offline).to(device, precision)
        remarks += target.remarks
        clip_vectors, clip_key = _clip_vectors(store, numbers, target, root, progress, dry_run), target.fingerprint
        if config.start.linear_start:
            texts = Texts.of(target, store.classes, config.start.caption, "zero" if sd == "embedded" else "end")
            adapter = adapter_for(config.start.adapter, sd, target)
        del target
        gc.collect()  # the towers are not needed again; at full size they are 1.7 GB
    model = load_stable_diffusion(sd, offline=offline)
    remarks += model.remarks
    need_space(out, model)
    size = config.data.image_size or model.image_size
    if size % vae_factor(model.vae):
        raise ModelError(
            f"images of {size} pixels do not fit a VAE that divides by {vae_factor(model.vae)}", "set image_size to a multiple"
        )
    moments = _moments(store, numbers, model, size, root, progress, dry_run, device, precision)
    identity = {
        "config": learned_settings(config.model_dump(mode="json")),
        "pairs": store.fingerprint, "pairs_content": store.content_sha256, "encoder": _encoder_identity(encoder), "sd": model.fingerprint, "clip": clip_key,
    }  # fmt: skip
    data = TrainingData(store, parts, row, moments, clip_vectors)
    task = FinetuneTask(config, data, eeg_encoder, model, size, identity, out, remarks, texts, adapter, dry_run=dry_run)
    task.seen = seen_by(encoder)
    if dry_run:
        task.plan = finetune_plan(task, [rows for rows in (clip_vectors, moments) if isinstance(rows, PlannedRows)])
    return task


def compared_with_encoder(pairs: Pairs, encoder: EEGEncoder, strict_rate: bool = False) -> tuple[Pairs, tuple[str, ...]]:
    """The trials at the rate that the encoder knows (`dreamdiff.rates`), and in words what differs from its pre-training.

    Raises:
        ModelError: trials that it cannot read at its rate; another rate under `strict_rate`.
    """
    known = encoder.signal
    store, notes = pairs.at_model_rate(known, encoder.config.window, strict=strict_rate, trainable=True)
    value = signal_of([store.attributes[name] for name in store.subjects], store.recipe.get("settings"))
    differing = []
    if known.band and value.band and known.band != value.band:
        differing.append("a pass band of {:g}-{:g} Hz instead of {:g}-{:g} Hz".format(*value.band, *known.band))
    if known.caps and value.caps and not {cap.shown for cap in value.caps} <= {cap.shown for cap in known.caps}:
        most = max(_shared_rows(one, other) for one in value.caps for other in known.caps)
        differing.append(f"{most} of {encoder.config.channels} rows show the same electrode as then")
    if known.reference and value.reference and known.reference != value.reference:
        differing.append(f"reference {value.reference!r} instead of {known.reference!r}")
    if differing:
        notes = (*notes, f"{pairs.path} differs from what the encoder was pre-trained on: {'; '.join(differing)}")
    return store, notes


def _shared_rows(one: CapConfig, other: CapConfig) -> int:
    return sum(a is not None and a == b for a, b in zip(one.shown, other.shown, strict=False))


def check_eeg(pairs: Pairs, encoder: EEGEncoder) -> None:
    """Trials must have the shape and the unit that the encoder was trained with.

    Raises:
        ModelError: naming both.
    """
    expected, value = (encoder.config.channels, encoder.config.window), pairs.eeg_shape
    if expected != value:
        raise ModelError(
            f"{pairs.path}: trials of {value[0]} channels and {value[1]} samples, the encoder reads {expected[0]} and {expected[1]}",
            "make the pairs with that window, or use another --encoder",
        )
    for subject in pairs.subjects:
        unit = pairs.attributes[subject].get("unit", "uV")
        if unit != "uV" and encoder.config.scaling != "robust":
            raise ModelError(
                f"{pairs.path}: {subject} is in {unit!r}, the encoder was trained on uV with scaling {encoder.config.scaling!r}",
                "use pairs in uV, or an encoder with scaling 'robust', which has no unit",
            )


def load_encoder(source: str) -> EEGEncoder:
    """A pre-trained encoder, an aligned one with its front end, or a fresh one for `random:PRESET` (rows 1 to 4 of Table 2)."""
    if source.startswith("random:"):
        with torch.random.fork_rng(devices=[]):
            # always the same: an encoder called `random:PRESET` is one encoder
            torch.manual_seed(0)
            return EEGEncoder.from_preset(source.removeprefix("random:"))
    if is_aligned(source):
        return cast(EEGEncoder, fronted_encoder(source))
    return EEGEncoder.from_pretrained(source)


def seen_by(source: str) -> list[Entry]:
    """What an encoder was trained on before (`lineage.seen`)."""
    if source.startswith("random:"):
        return []
    if is_aligned(source):
        seen = AlignedEncoder.from_pretrained(source).config.training.get("seen", [{"kind": "unknown", "where": source}])
        return cast(list[Entry], seen)
    return read_seen(weights_folder(Path(source)))


def _encoder_identity(source: str) -> str:
    return source if source.startswith("random:") else weights_digest(weights_folder(Path(source)))


def need_space(out: Path, model: StableDiffusion) -> None:
    """The pipeline and three checkpoints have to fit.

    Raises:
        StoreError: naming what is needed and what is free.
    """
    # the weights once for the pipeline, and as much again for checkpoints, which hold what is trained
    size = sum(p.numel() * p.element_size() for part in (model.unet, model.vae) for p in part.parameters()) * 2
    require_free(out, size, "checkpoints and pipeline", "free disk space, or choose another --out")


def wants_clip(config: FinetuneConfig) -> bool:
    """Whether anything in this configuration reads CLIP vectors."""
    return bool(
        config.losses.w_clip
        or config.losses.w_contrastive
        or config.losses.w_class
        or config.validation.select == "clip-accuracy"
    )


def _clip_vectors(
    pairs: Pairs, numbers: np.ndarray, clip: ClipTarget, root: Path, progress: ProgressCallback | None, dry_run: bool
) -> CachedRows | PlannedRows:
    def compute(chosen: Sequence[int]) -> np.ndarray:
        return clip.encode_images(read_each(pairs, [numbers[row] for row in chosen])).numpy()

    digests = [pairs.image_sha256[number] for number in numbers]
    if dry_run:
        return planned_rows(root, "clip", clip.fingerprint, digests, (clip.width,))
    batch = fitting_batch(place_of(clip.model)[0], BYTES_OF_IMAGE, least=16, most=512)
    also = shared_cache(pairs.path)
    return shared_rows(root, "clip", clip.fingerprint, digests, compute, batch=batch, progress=progress, also=also)


def _moments(
    pairs: Pairs, numbers: np.ndarray, model: StableDiffusion, size: int, root: Path, progress: ProgressCallback | None,
    dry_run: bool, device: torch.device, precision: str,
) -> CachedRows | PlannedRows:  # fmt: skip
    precision = "fp32" if precision == "fp16" else precision  # the VAE of Stable Diffusion overflows in fp16

    @torch.no_grad()
    def compute(chosen: Sequence[int]) -> np.ndarray:
        with mixed(precision, device):
            return image_moments(model.vae, pairs.load_images(numbers[np.asarray(chosen)], size=size)).numpy()

    # latents depend on the VAE and on the square that it was shown: another U-Net finds them in the cache, another crop does not
    vae_files = {name: digest for name, digest in model.files.items() if name.startswith("vae/")} or model.files
    key = f"{'-'.join(digest[:12] for digest in vae_files.values())}-{size}-{SQUARE}" + (
        "" if precision == "fp32" else f"-{precision}"
    )
    digests = [pairs.image_sha256[number] for number in numbers]
    if dry_run:
        side = size // vae_factor(model.vae)
        shape = (2 * int(model.vae.config.latent_channels), side, side)
        return planned_rows(root, "latents", sha256(key), digests, shape)
    model.vae.to(device)
    batch = fitting_batch(device, VAE_BYTES_OF_PIXEL * size**2, least=4, most=64)
    rows = shared_rows(
        root, "latents", sha256(key), digests, compute, batch=batch, progress=progress,
        also=shared_cache(pairs.path),
    )  # fmt: skip
    model.vae.to("cpu")  # training needs the latents only
    return rows
