"""Fine-tuning on EEG-image pairs (paper, sections 3.2 and 3.3): the task that `loop.fit` trains, and what it needs on disk.

Shapes: N trials, B batch, C channels, T samples, L tokens, D width, H W pixels.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors import torch as safetensors_torch
from torch import Tensor, nn

from eegprep import atomic
from eegprep.errors import CheckpointError, DataError, ModelError, StoreError
from eegprep.recording import ProgressCallback

from .clip_target import ClipTarget, load_clip
from .conditioner import Conditioner, ConditionerConfig, clip_loss, condition, contrastive_loss, ridge
from .config import FinetuneConfig
from .encoder import EEGEncoder, weights_folder
from .latent_cache import CachedRows, cached_rows
from .latent_diffusion import (
    NoiseSchedule,
    StableDiffusion,
    accept_time_branch,
    choose_trainable,
    diffusion_loss,
    file_sha256,
    load_stable_diffusion,
    make_scheduler,
    merge_lora,
    vae_factor,
)
from .loop import Batch, Draw, FitResult, Task, fit, mix
from .pairs import Pairs
from .pipeline import FOLDER, DreamDiffusionPipeline, PipelineConfig, SignalConfig, check_fit

CONTEXT_TOKENS = 77  # what Stable Diffusion 1.x was trained with
EEG_MEMORY = 1 << 30  # bytes; a pairs store up to here is held in memory


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
) -> FitResult:
    """Fine-tune and write `out/pipeline`; run again with the same arguments to continue.

    Args:
        pairs: store of EEG-image pairs. encoder: run of `dreamdiff train msm`, encoder folder, or `random:PRESET` for none.
        sd, clip: see `load_stable_diffusion` and `load_clip`. offline: refuse to download.
    """
    return fit_task(prepare(pairs, encoder, sd, clip, out, config, progress=progress, offline=offline), progress=progress)


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
) -> FinetuneTask:
    """Load, check and cache everything that training needs, cheapest checks first.

    Raises:
        ModelError, DataError, CheckpointError, StoreError: what does not fit, before time is spent.
    """
    store = Pairs.open(pairs)
    eeg_encoder = load_encoder(encoder)
    check_eeg(store, eeg_encoder)
    parts = split_parts(store, config)
    root = Path(config.cache) if config.cache else default_cache(store.path, out)
    numbers = np.unique(store.image[np.concatenate([parts["train"], parts["val"]])])  # images of test trials are never read
    row = np.full(len(store.image_sha256), -1)
    row[numbers] = np.arange(len(numbers))
    remarks: list[str] = []
    clip_vectors, clip_key, texts = None, "none", None
    if wants_clip(config):
        target = load_clip(clip, offline=offline)
        remarks += target.remarks
        clip_vectors, clip_key = _clip_vectors(store, numbers, target, root, progress), target.fingerprint
        if config.linear_start:
            texts = Texts.of(target, store.classes, config.caption, "zero" if sd == "embedded" else "end")
        del target
        gc.collect()  # the towers are not needed again; at full size they are 1.7 GB
    model = load_stable_diffusion(sd, offline=offline)
    remarks += model.remarks
    need_space(out, model)
    size = config.image_size or model.image_size
    if size % vae_factor(model.vae):
        raise ModelError(
            f"images of {size} pixels do not fit a VAE that divides by {vae_factor(model.vae)}", "set image_size to a multiple"
        )
    moments = _moments(store, numbers, model, size, root, progress)
    exclude = {
        "loop": {"checkpoint_minutes", "checkpoint_steps", "keep_checkpoints", "tracker"},
        "cache": True,
        "preview_trials": True,
    }
    identity = {
        "config": config.model_dump(mode="json", exclude=cast(Any, exclude)),
        "pairs": store.fingerprint, "encoder": _encoder_identity(encoder), "sd": model.fingerprint, "clip": clip_key,
    }  # fmt: skip
    data = TrainingData(store, parts, row, moments, clip_vectors)
    return FinetuneTask(config, data, eeg_encoder, model, size, identity, out, remarks, texts)


# ------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class TrainingData:
    """Pairs with what the frozen networks say about the images of training and validation trials.

    parts: positions of train, val and test.
    row: image number -> row of `moments` and `clip_vectors`, -1 for images that only test trials have.
    """

    pairs: Pairs
    parts: dict[str, np.ndarray]
    row: np.ndarray
    moments: CachedRows
    clip_vectors: CachedRows | None

    def batch(self, positions: np.ndarray, eeg_NCT: np.ndarray | None = None) -> dict[str, Any]:
        """EEG in uV, VAE moments, CLIP vectors, labels and image numbers of these trials, as tensors."""
        image = self.pairs.image[positions]
        batch = {
            "index": torch.as_tensor(positions), "image": torch.as_tensor(image),
            "eeg": torch.from_numpy(self.pairs.eeg(positions) if eeg_NCT is None else eeg_NCT),
            "moments": torch.from_numpy(self.moments.read(self.row[image])),
            "label": torch.as_tensor(self.pairs.labels[positions].astype(np.int64)),
        }  # fmt: skip
        if self.clip_vectors is not None:
            batch["clip"] = torch.from_numpy(self.clip_vectors.read(self.row[image]))
        return batch


class PairStream:
    """Shuffled batches of trials; every process takes its share of each epoch's permutation (see `loop.Stream`)."""

    def __init__(self, data: TrainingData, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.data, self.batch_size, self.seed, self.rank, self.world_size = data, batch_size, seed, rank, world_size
        self.positions = data.parts["train"]
        self.share = len(self.positions) // world_size
        if self.share == 0:
            raise DataError(
                f"{len(self.positions)} training trials for {world_size} processes", "use fewer processes, or another split"
            )
        self.epoch, self.done = 0, 0
        bytes_wanted = len(self.positions) * int(np.prod(data.pairs.eeg_shape)) * 4
        self._held = data.pairs.eeg(self.positions) if bytes_wanted <= EEG_MEMORY else None

    def __len__(self) -> int:
        return (self.share + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        order = np.random.default_rng(mix(self.seed, self.epoch, "pairs")).permutation(len(self.positions))
        mine = order[self.rank :: self.world_size][: self.share]
        while self.done < len(self):
            chosen = mine[self.done * self.batch_size : (self.done + 1) * self.batch_size]
            self.done += 1
            yield self.data.batch(self.positions[chosen], None if self._held is None else self._held[chosen])
        self.epoch, self.done = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Epoch and batches handed out in it."""
        return {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the very next batch."""
        self.epoch, self.done = int(state["epoch"]), int(state["done"])


def split_parts(pairs: Pairs, config: FinetuneConfig) -> dict[str, np.ndarray]:
    """Positions of train, val and test; test is returned so that it can be kept out, nothing here reads it.

    Raises:
        DataError: an empty part, or parts that share a trial.
    """
    parts = pairs.split(config.split)  # the same trials under this name for generate and evaluate, whatever the training seed
    if len(parts["train"]) == 0:
        raise DataError(f"{pairs.path}: split {config.split!r} has no training trials", "choose another --set split=NAME")
    if len(parts["val"]) == 0 and config.select != "last":
        raise DataError(
            f"{pairs.path}: split {config.split!r} has no validation trials, which select = {config.select!r} judges by",
            "choose a split with a val part, or --set select=last",
        )
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        both = np.intersect1d(parts[first], parts[second])
        if len(both):
            raise DataError(f"{pairs.path}: {first} and {second} share {len(both)} trials", "mend the split")
    return parts


def check_eeg(pairs: Pairs, encoder: EEGEncoder) -> None:
    """Trials must have the shape and the unit that the encoder was trained with.

    Raises:
        ModelError: naming both.
    """
    wanted, found = (encoder.config.channels, encoder.config.window), pairs.eeg_shape
    if wanted != found:
        raise ModelError(
            f"{pairs.path}: trials of {found[0]} channels and {found[1]} samples, the encoder reads {wanted[0]} and {wanted[1]}",
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
    """A pre-trained encoder, or a fresh one for `random:PRESET` (rows 1 to 4 of Table 2)."""
    if source.startswith("random:"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return EEGEncoder.from_preset(source.removeprefix("random:"))
    return EEGEncoder.from_pretrained(source)


def _encoder_identity(source: str) -> str:
    return source if source.startswith("random:") else file_sha256(weights_folder(Path(source)) / "model.safetensors")


def default_cache(pairs: Path, out: Path) -> Path:
    """Beside the pairs, so that several runs share it; in the run where that folder cannot be written."""
    beside = pairs.resolve().parent
    return beside / f"{pairs.name.removesuffix('.zarr')}.cache.zarr" if os.access(beside, os.W_OK) else out / "cache.zarr"


def need_space(out: Path, model: StableDiffusion) -> None:
    """The pipeline and three checkpoints have to fit.

    Raises:
        StoreError: naming what is needed and what is free.
    """
    folder = next(parent for parent in (out, *out.resolve().parents) if parent.exists())
    wanted = sum(p.numel() * p.element_size() for part in (model.unet, model.vae) for p in part.parameters()) * 2
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise StoreError(
            f"{out}: checkpoints and pipeline need about {wanted / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free",
            "free disk space, or choose another --out",
        )


def wants_clip(config: FinetuneConfig) -> bool:
    """Whether anything in this configuration reads CLIP vectors."""
    return bool(config.w_clip or config.w_contrastive or config.w_class or config.select == "clip-accuracy")


def _clip_vectors(
    pairs: Pairs, numbers: np.ndarray, clip: ClipTarget, root: Path, progress: ProgressCallback | None
) -> CachedRows:
    def compute(chosen: Sequence[int]) -> np.ndarray:
        return clip.encode_images([pairs.load_images([numbers[row]])[0] for row in chosen]).numpy()

    digests = [pairs.image_sha256[number] for number in numbers]
    rows = cached_rows(root, "clip", clip.fingerprint, digests, compute, progress=progress)
    return rows


def _moments(
    pairs: Pairs, numbers: np.ndarray, model: StableDiffusion, size: int, root: Path, progress: ProgressCallback | None
) -> CachedRows:
    @torch.no_grad()
    def compute(chosen: Sequence[int]) -> np.ndarray:
        return image_moments(model.vae, pairs.load_images(numbers[np.asarray(chosen)], size=size)).numpy()

    vae_files = {name: digest for name, digest in model.files.items() if name.startswith("vae/")} or model.files
    key = f"{'-'.join(digest[:12] for digest in vae_files.values())}-{size}"
    digests = [pairs.image_sha256[number] for number in numbers]
    return cached_rows(root, "latents", hashlib.sha256(key.encode()).hexdigest(), digests, compute, batch=4, progress=progress)


def image_moments(vae: Any, images_NHWC: np.ndarray) -> Tensor:
    """Mean and log-variance of q(z | image), (N, 2 C, h, w): all that is needed to draw latents later."""
    pixels = torch.from_numpy(np.ascontiguousarray(images_NHWC)).permute(0, 3, 1, 2).to(vae.device, vae.dtype) / 127.5 - 1
    return vae.encode(pixels).latent_dist.parameters.float().cpu()


def draw_latents(moments_BCHW: Tensor, noise_BCHW: Tensor, scaling_factor: float) -> Tensor:
    """z = (mean + std * noise) * scaling factor, log-variance limited to -30..20 as in the VAE itself."""
    mean, log_variance = moments_BCHW.chunk(2, dim=1)
    return (mean + (0.5 * log_variance.clamp(-30, 20)).exp() * noise_BCHW) * scaling_factor


# ------------------------------------------------------------------------------------------------- the task


class Trained(nn.Module):
    """All parts that take part in a step, under one root, so that one state holds what is trained."""

    def __init__(self, encoder: EEGEncoder, conditioner: Conditioner, unet: nn.Module) -> None:
        super().__init__()
        self.encoder, self.conditioner, self.unet = encoder, conditioner, unet


class FinetuneTask(Task):
    """L = w_sd L_SD + w_clip L_clip + w_contrastive L_contrastive + w_class cross-entropy (paper: 1, 1, 0, 0)."""

    def __init__(
        self,
        config: FinetuneConfig,
        data: TrainingData,
        encoder: EEGEncoder,
        model: StableDiffusion,
        image_size: int,
        identity: dict[str, Any],
        run_dir: Path,
        remarks: Sequence[str] = (),
        texts: Texts | None = None,
    ) -> None:
        self.remarks = list(remarks)
        self.config, self.data, self.model, self.image_size = config, data, model, image_size
        self.run_dir, self._identity = run_dir, identity
        self.schedule = NoiseSchedule.of(model.scheduler)
        unet = cast(Any, model.unet)
        wanted = ConditionerConfig(
            tokens_in=encoder.tokens,
            width_in=encoder.width,
            tokens_out=CONTEXT_TOKENS,
            context_width=model.context_width,
            clip_width=data.clip_vectors.row_shape[0] if data.clip_vectors is not None else 0,
            clip_from=config.clip_from,
            time_width=int(unet.config.block_out_channels[0]) * 4 if config.time_branch else 0,
            classes=len(data.pairs.classes) if config.w_class else 0,
            linear_channels=encoder.config.channels if texts is not None else 0,
            linear_bins=config.linear_bins,
            captions=len(texts.vectors_KD) if texts is not None else 0,
        )
        if config.time_branch:
            accept_time_branch(unet)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(config.loop.seed, "new layers"))
            self.module = Trained(encoder, Conditioner(wanted), unet)
            self._freeze()
        check_fit(unet, model.vae, encoder, self.module.conditioner)
        if config.context_std is not None:
            self._calibrate(config.context_std)
        if texts is not None:
            self.remarks += linear_start(self.module, data, texts)
        if config.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
            encoder.gradient_checkpointing = True

    def compile(self) -> None:
        trained = cast(Trained, self.module)
        for block in trained.encoder.blocks:
            block.compile()
        cast(Any, trained.unet).compile_repeated_blocks()  # its transformer blocks: the layers around them hardly gain

    # --- what trains

    def _freeze(self) -> None:
        """Everything first, then what is chosen."""
        trained, config = cast(Trained, self.module), self.config
        trained.requires_grad_(False)
        cast(Any, self.model.vae).requires_grad_(False).eval()
        choose_trainable(trained.unet, config.trains, config.lora_rank)
        if config.train_encoder:
            trained.encoder.requires_grad_(True)
            trained.encoder.cls_token.requires_grad_(False)  # not used outside pre-training
        trained.conditioner.requires_grad_(True)
        trained.conditioner.null_LD.requires_grad_(config.guidance_dropout > 0)

    def _calibrate(self, std: float) -> None:
        trained = cast(Trained, self.module)
        some = self.data.parts["train"][:32]
        with torch.no_grad():
            trained.conditioner.calibrate(trained.encoder(torch.from_numpy(self.data.pairs.eeg(some))), 0.0, std)

    def trainable_table(self) -> list[dict[str, Any]]:
        """Part, parameters, of which trained, share."""
        return trainable_table(self.module)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """AdamW groups: encoder, conditioner and U-Net with their own rates; vectors and scalars are not decayed."""
        groups = []
        for name, scale in (("encoder", self.config.lr_encoder), ("conditioner", self.config.lr_conditioner), ("unet", 1.0)):
            params = [p for p in getattr(self.module, name).parameters() if p.requires_grad]
            for chosen, decay in (([p for p in params if p.ndim > 1], weight_decay), ([p for p in params if p.ndim <= 1], 0.0)):
                if chosen:
                    groups.append({"params": chosen, "weight_decay": decay, "lr_scale": scale, "name": name})
        return groups

    # --- loop.Task

    def identity(self) -> dict[str, Any]:
        """Configuration and digests of all inputs."""
        return self._identity

    def stream(self, rank: int, world_size: int) -> PairStream:
        """Training trials."""
        return PairStream(self.data, self.config.batch_size, self.config.loop.seed, rank, world_size)

    def step(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        """All losses of one batch; noise, time step and dropped EEG are functions of the trial and the epoch."""
        config, trained = self.config, cast(Trained, self.module)
        context = condition(trained.encoder, trained.conditioner, batch["eeg"])
        losses: dict[str, Tensor] = {}
        if context.clip_BD is not None and "clip" in batch:
            losses["clip"] = clip_loss(context.clip_BD, batch["clip"])
            if config.w_contrastive:
                losses["contrastive"] = contrastive_loss(context.clip_BD, batch["clip"], batch["image"])
        if context.logits_BK is not None:
            losses["class"] = F.cross_entropy(context.logits_BK.float(), batch["label"])
        if config.w_sd:
            if config.guidance_dropout:
                context = trained.conditioner.drop(context, draw.uniform("guidance") < config.guidance_dropout)
            shape = (batch["moments"].shape[1] // 2, *batch["moments"].shape[2:])
            clean_BCHW = draw_latents(
                batch["moments"], draw.normal("latent", *shape), float(self.model.vae.config.scaling_factor)
            )
            schedule = self._schedule(clean_BCHW.device)
            losses["sd"] = diffusion_loss(
                trained.unet, schedule, clean_BCHW, context.tokens_BLD, draw.normal("noise", *shape),
                draw.integers("step", len(schedule)), time_BD=context.time_BD, min_snr_gamma=config.min_snr_gamma,
            )  # fmt: skip
        weights = {"sd": config.w_sd, "clip": config.w_clip, "contrastive": config.w_contrastive, "class": config.w_class}
        total = sum((weights[name] * value for name, value in losses.items()), torch.zeros((), device=batch["eeg"].device))
        return {"loss": total, **losses}

    def _schedule(self, device: torch.device) -> NoiseSchedule:
        if self.schedule.alpha_bar_S.device != device:
            self.schedule = self.schedule.to(device)
        return self.schedule

    @torch.no_grad()
    def validate(self, device: torch.device) -> dict[str, float]:
        """Losses on validation trials with noise that never changes, and how often h(y) is nearest to its own class's images.

        When these weights are the best so far they are kept in `best/`. Test trials are never read.
        """
        positions = self.data.parts["val"][: self.config.validate_trials]
        if len(positions) == 0:
            return {}
        sums: dict[str, float] = {}
        hits = 0.0
        for start in range(0, len(positions), self.config.batch_size):
            chosen = positions[start : start + self.config.batch_size]
            batch = {name: value.to(device) for name, value in self.data.batch(chosen).items()}
            losses = self.step(batch, Draw(self.config.loop.seed, -1, batch["index"], device))
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(chosen)
            hits += self._clip_hits(batch)
        numbers = {name: value / len(positions) for name, value in sums.items()}
        if self.data.clip_vectors is not None:
            numbers["clip_accuracy"] = hits / len(positions)
        self._keep_best(numbers)
        return numbers

    def _clip_hits(self, batch: Batch) -> float:
        """Trials whose h(y) lies, seen from the mean over classes, nearest to the mean vector of their class's training images."""
        if self.data.clip_vectors is None:
            return 0.0
        trained = cast(Trained, self.module)
        clip_BD = condition(trained.encoder, trained.conditioner, batch["eeg"]).clip_BD
        if clip_BD is None:
            return 0.0
        centres_KD = self._class_centres().to(clip_BD.device)
        mean_D = centres_KD.mean(dim=0)  # all images share a large part; a cautious h(y) differs little from it
        toward_BD, centres_KD = F.normalize(clip_BD.float() - mean_D, dim=-1), F.normalize(centres_KD - mean_D, dim=-1)
        return float(((toward_BD @ centres_KD.T).argmax(dim=1) == batch["label"]).sum())

    def _class_centres(self) -> Tensor:
        pairs, train = self.data.pairs, self.data.parts["train"]
        assert self.data.clip_vectors is not None
        centres = torch.zeros(len(pairs.classes), self.data.clip_vectors.row_shape[0])
        for label in range(len(pairs.classes)):
            images = np.unique(pairs.image[train][pairs.labels[train] == label])
            if len(images):
                vectors = torch.from_numpy(self.data.clip_vectors.read(self.data.row[images]))
                centres[label] = F.normalize(vectors.mean(dim=0), dim=-1)
        return centres

    def _keep_best(self, numbers: dict[str, float]) -> None:
        if self.config.select == "last":
            return
        score = -numbers["clip_accuracy"] if self.config.select == "clip-accuracy" else numbers["loss"]
        best = best_score(self.run_dir)
        if best is None or score < best:
            state = {name: p.detach().cpu().contiguous() for name, p in self.module.named_parameters() if p.requires_grad}
            metadata = {"score": repr(score), "select": self.config.select, **{f"val_{k}": repr(v) for k, v in numbers.items()}}
            atomic.write_bytes(self.run_dir / "best" / "model.safetensors", safetensors_torch.save(state, metadata=metadata))

    def pictures(self, run_dir: Path, device: torch.device) -> None:
        """`preview.png`: a few validation trials, the image seen on the left, the image generated on the right."""
        positions = self.data.parts["val"] if len(self.data.parts["val"]) else self.data.parts["train"]
        positions = positions[np.linspace(0, len(positions) - 1, self.config.preview_trials).astype(int)]
        if len(positions) == 0:
            return
        pipe = self.pipeline()
        pipe.set_progress_bar_config(disable=True)
        vae = cast(Any, self.model.vae)
        vae.to(device)
        generators = [torch.Generator().manual_seed(int(p)) for p in positions]
        made = pipe(
            self.data.pairs.eeg(positions), num_inference_steps=10, guidance_scale=1.0, generator=generators, output_type="np"
        ).images
        seen = self.data.pairs.images(positions, size=self.image_size)
        rows = [np.concatenate([a, (b * 255).round().astype(np.uint8)], axis=1) for a, b in zip(seen, made, strict=True)]
        with atomic.open_atomic(run_dir / "preview.png") as file:
            Image.fromarray(np.concatenate(rows)).save(file, format="PNG")

    def pipeline(self) -> DreamDiffusionPipeline:
        """The current weights as a pipeline (sharing them)."""
        config, trained, pairs = self.config, cast(Trained, self.module), self.data.pairs
        attributes = pairs.attributes[pairs.subjects[0]]
        details = PipelineConfig(
            guidance=config.guidance if config.guidance_dropout else 1.0,
            guidance_trained=config.guidance_dropout > 0,
            image_size=self.image_size,
            signal=SignalConfig(
                sfreq=attributes.get("sfreq"),
                t0=attributes.get("t0"),
                band=tuple(attributes["band"]) if attributes.get("band") else None,
                unit=attributes.get("unit", "uV"),
            ),
            classes=tuple(pairs.classes),
            training={"pairs": pairs.fingerprint, "provenance": pairs.provenance, "split": config.split, "trains": config.trains,
                      "train_encoder": config.train_encoder, "sd": self.model.source, "select": config.select},
        )  # fmt: skip
        scheduler = make_scheduler("dpm-solver++", cast(Any, self.model.scheduler).config)
        return DreamDiffusionPipeline(
            cast(Any, trained.unet), self.model.vae, scheduler, trained.encoder, trained.conditioner, details
        )

    def export(self, run_dir: Path) -> None:
        """Write `pipeline/`, with the weights that did best on the validation trials."""
        best = run_dir / "best" / "model.safetensors"
        if self.config.select != "last" and best.is_file():
            load_trained(self.module, best)
        pipe = self.pipeline()
        if self.config.trains == "lora":
            pipe.unet = copy.deepcopy(pipe.unet)  # the run may go on; its adapters stay apart
            merge_lora(pipe.unet)
        pipe.save_pretrained(run_dir / FOLDER)


# --------------------------------------------------------------------------------------- the linear start


@dataclass(frozen=True)
class Texts:
    """Captions of the classes: unit vectors and last hidden states of CLIP's text tower, and the states of an empty text.

    vectors_KD, states_KLD, empty_LD.
    """

    vectors_KD: Tensor
    states_KLD: Tensor
    empty_LD: Tensor

    @classmethod
    def of(cls, clip: ClipTarget, classes: Sequence[str], template: str, padding: Any) -> Texts:
        """Read the captions `template` with {a} and {name} filled in."""
        captions = [template.format(a="an" if name[:1].lower() in "aeiou" else "a", name=name.lower()) for name in classes]
        return cls(clip.encode_text(captions), clip.text_states(captions, padding), clip.text_states([""], padding)[0])


@torch.no_grad()
def linear_start(module: Trained, data: TrainingData, texts: Texts, limit: int = 4000) -> list[str]:
    """Fit the linear path and the bridge in closed form on the training trials, and let tau and the CLIP head begin at zero.

    1. EEG -> CLIP: ridge regression of the image's vector on channels x time bins, after whitening over channels (the covariance is
       the training trials' own); the penalty is chosen by cross-validation among training images.
    2. CLIP -> context: attention over the captions of the class names. The key of a caption is the mean direction of the training
       images that CLIP finds nearest to it (its own direction, if there is none), its value are its text states. Labels of trials are
       not used, but the names of the classes are, and for drawings the nearest caption is nearly always that of the label.
    3. "No EEG" is the state of the empty text, which is what the U-Net knows as no condition.

    Ours: with some thousand trials and minutes of time, gradient descent alone hardly finds what a linear map shows at once.
    """
    conditioner, encoder = module.conditioner, module.encoder
    linear, bridge = conditioner.linear, conditioner.bridge
    assert linear is not None and bridge is not None and data.clip_vectors is not None
    if tuple(texts.empty_LD.shape) != tuple(conditioner.null_LD.shape):
        raise ModelError(
            f"CLIP's text states are {tuple(texts.empty_LD.shape)}, the U-Net reads {tuple(conditioner.null_LD.shape)}",
            "set linear_start=false, or use the CLIP that this Stable Diffusion was trained with",
        )
    train = data.parts["train"]
    chosen = train if len(train) <= limit else np.random.default_rng(0).choice(train, limit, replace=False)
    parts = [
        linear.features(encoder.scale(torch.from_numpy(data.pairs.eeg(part))))
        for part in np.array_split(chosen, -(-len(chosen) // 256))
    ]
    features_NCW = torch.cat(parts)
    whitener_CC = spatial_whitener(features_NCW)
    target_ND = torch.from_numpy(data.clip_vectors.read(data.row[data.pairs.image[chosen]]))
    weights, offset, left = ridge(
        torch.einsum("dc,ncw->ndw", whitener_CC, features_NCW).flatten(1), target_ND, torch.as_tensor(data.pairs.image[chosen])
    )
    weights = torch.einsum("dc,dwk->cwk", whitener_CC, weights.unflatten(0, features_NCW.shape[1:])).flatten(0, 1)
    linear.map.weight.copy_(weights.T)
    linear.map.bias.copy_(offset)
    images = np.unique(data.pairs.image[train])
    image_MD = torch.from_numpy(data.clip_vectors.read(data.row[images]))
    caption_M = (image_MD @ texts.vectors_KD.T).argmax(dim=1)
    mean_D = image_MD.mean(dim=0)
    direction_MD = F.normalize(image_MD - mean_D, dim=-1)
    keys_KD = F.normalize(texts.vectors_KD - texts.vectors_KD.mean(dim=0), dim=-1)
    for caption in caption_M.unique():
        keys_KD[caption] = direction_MD[caption_M == caption].mean(dim=0)
    bridge.clip_mean_D.copy_(mean_D)
    bridge.keys_KD.copy_(keys_KD)
    bridge.states_KLD.copy_(texts.states_KLD)
    conditioner.null_LD.copy_(texts.empty_LD)
    for layer in (conditioner.dim_mapper, cast(Any, conditioner.clip_head).fc):
        layer.weight.zero_()
        layer.bias.zero_()
    share = f"leaves {left:.0%} of the variance of the images' CLIP vectors, each image's trials predicted from those of others"
    return [f"linear start: ridge regression on {len(chosen)} training trials {share}"]


def spatial_whitener(features_NCW: Tensor, floor: float = 1e-4) -> Tensor:
    """Symmetric inverse square root of the covariance over channels; directions below `floor` of the largest variance are not raised.

    With replicated channels the covariance has no full rank.
    """
    x_CN = (features_NCW - features_NCW.mean(0)).transpose(0, 1).flatten(1).double()
    values, vectors = torch.linalg.eigh(x_CN @ x_CN.T / x_CN.shape[1])
    return ((vectors / values.clamp_min(floor * float(values.max())).sqrt()) @ vectors.T).float()


def best_score(run_dir: Path) -> float | None:
    """Score of the weights in `best/` (lower is better), or None."""
    file = run_dir / "best" / "model.safetensors"
    if not file.is_file():
        return None
    with safe_open(file, framework="pt") as content:
        return float((content.metadata() or {}).get("score", "inf"))


def load_trained(module: nn.Module, file: Path) -> None:
    """Put trained parameters back; all of them must be there."""
    found = safetensors_torch.load_file(file)
    wanted = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if set(found) != set(wanted):
        raise CheckpointError(
            f"{file}: holds {len(found)} tensors, {len(wanted)} are trained", "remove the folder best/ and run again"
        )
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(found[name])


def trainable_table(module: nn.Module) -> list[dict[str, Any]]:
    """Part, parameters, of which trained; one row per part that a person can name."""
    rows: dict[str, list[int]] = {}
    for name, parameter in module.named_parameters():
        part = _part_of(name)
        counts = rows.setdefault(part, [0, 0])
        counts[0] += parameter.numel()
        counts[1] += parameter.numel() if parameter.requires_grad else 0
    table = [{"part": part, "parameters": all_, "trained": trained} for part, (all_, trained) in rows.items()]
    all_, trained = (sum(counts[i] for counts in rows.values()) for i in (0, 1))
    return [*table, {"part": "all", "parameters": all_, "trained": trained}]


_CONDITIONER_PARTS = {
    "channel_mapper": "tau", "dim_mapper": "tau", "null_LD": "no-EEG tokens", "clip_head": "CLIP head h",
    "time_branch": "time branch", "classifier": "class head",
}  # fmt: skip


def _part_of(name: str) -> str:
    """Only for the table; what trains is chosen by module."""
    pieces = name.split(".")
    if pieces[0] == "encoder":
        return "EEG encoder"
    if pieces[0] == "conditioner":
        return _CONDITIONER_PARTS.get(pieces[1], pieces[1])
    if "attn2" in pieces:
        part = "adapters" if "lora_A" in pieces or "lora_B" in pieces else "cross-attention"
        return f"U-Net, {part}"
    return "U-Net, rest"
