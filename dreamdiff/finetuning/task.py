"""Fine-tuning on EEG-image pairs (paper, sections 3.2 and 3.3): the task that `loop.fit` trains, and what it needs on disk.

Shapes: N trials, B batch, C channels, T samples, L tokens, D width, H W pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dreamdiff.devices import choose_device, mixed, place_of, send
from dreamdiff.diffusion.adapters import ImageAdapter
from dreamdiff.diffusion.conditioner import Conditioner, condition
from dreamdiff.diffusion.noise import NoiseSchedule, make_scheduler
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline, PipelineConfig, check_fit
from dreamdiff.diffusion.pipeline_folder import FOLDER
from dreamdiff.diffusion.stable_diffusion import StableDiffusion
from dreamdiff.diffusion.trainable import accept_time_branch, merge_lora
from dreamdiff.eeg_input import SignalConfig, signal_of
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.finetuning.config import FinetuneConfig
from dreamdiff.finetuning.data import PairStream, TrainingData
from dreamdiff.finetuning.linear_start import Texts, linear_start, words_of
from dreamdiff.finetuning.plan import FinetunePlan
from dreamdiff.finetuning.step import choose_what_trains, conditioner_config, losses_of
from dreamdiff.finetuning.trained import FrozenHalf, Trained, trainable_table
from dreamdiff.lineage.seen import Entry, seen_in_pairs
from dreamdiff.origin import caption_strip, generator_licence, generator_name, picture_origin, portable, write_png
from dreamdiff.rates import shares
from dreamdiff.training.best import best_file, keep_if_best, load_trained
from dreamdiff.training.machine import precision_for
from dreamdiff.training.optim import ParameterGroup
from dreamdiff.training.task import Batch, Draw, Task, mix
from eegprep.corpus.rates import count_rates
from eegprep.settings import current_form
from eegprep.signals.spectra import spread


def learned_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings that decide what is learned: not where latents are cached, what is drawn, or how often a checkpoint is written."""
    free = {
        "data": {"cache"},
        "validation": {"preview_trials"},
        "loop": {"checkpoint_minutes", "checkpoint_steps", "keep_checkpoints", "tracker", "device", "shard_optimizer"},
        "start": set() if config.get("start", {}).get("linear_start") else {"adapter"},
    }
    return {
        section: {key: value for key, value in values.items() if key not in free.get(section, ())}
        for section, values in config.items()
    }


class FinetuneTask(Task[Trained]):
    """L = w_sd L_SD + w_clip L_clip + w_contrastive L_contrastive + w_class cross-entropy (paper: 1, 1, 0, 0)."""

    seen: Sequence[Entry] = ()  # what the encoder was trained on before, see `lineage.seen`

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
        adapter: ImageAdapter | None = None,
        *,
        dry_run: bool = False,
    ) -> None:
        self.plan: FinetunePlan | None = None
        self.remarks = list(remarks)
        self.config, self.data, self.model, self.image_size = config, data, model, image_size
        self.run_dir, self._identity = run_dir, identity
        self.schedule = NoiseSchedule.of(model.scheduler)
        unet = cast(Any, model.unet)
        expected = conditioner_config(
            config, encoder, unet, clip_width=data.clip_vectors.row_shape[0] if data.clip_vectors is not None else 0,
            classes=len(data.pairs.classes),
            captions=0 if texts is None else len(texts.vectors_KD) if adapter is None else len(words_of(adapter, texts).keys_KD),
            adapter={} if adapter is None else {name: tuple(value.shape) for name, value in adapter.tensors.items()},
        )  # fmt: skip
        if config.what.time_branch:
            accept_time_branch(unet)
        if adapter is not None:
            adapter.attach(unet)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(config.loop.seed, "new layers"))
            self.module = Trained(encoder, Conditioner(expected), unet)
            choose_what_trains(self.module, config)
            cast(Any, model.vae).requires_grad_(False).eval()
        self.frozen = FrozenHalf()
        if not dry_run:
            self.module.to(choose_device(config.loop.device))
            self.frozen.halve(unet, precision_for(config.loop))
        check_fit(unet, model.vae, encoder, self.module.conditioner)
        if config.start.context_std is not None and not dry_run:
            self._calibrate(config.start.context_std)
        if texts is not None and not dry_run:
            self.remarks += linear_start(self.module, data, texts, adapter)
        if config.what.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
            encoder.gradient_checkpointing = True

    @property
    def scaling_factor(self) -> float:
        """Of the VAE's latents."""
        return float(self.model.vae.config.scaling_factor)

    def compile(self) -> None:
        trained = self.module
        if place_of(trained.encoder)[0].type == "cuda":
            self._losses = torch.compile(self._losses)  # type: ignore[method-assign]  # one graph, see tests/test_fake_cuda.py
            return
        for block in trained.encoder.blocks:
            block.compile()
        cast(
            Any, trained.unet
        ).compile_repeated_blocks()  # its transformer blocks: compiling the layers around them saves almost nothing

    def _calibrate(self, std: float) -> None:
        trained = self.module
        # a mean and a spread need no more trials
        some = self.data.parts["train"][:32]
        with torch.no_grad():
            eeg_NCT = send(torch.from_numpy(self.data.pairs.eeg(some)), place_of(trained.encoder)[0])
            trained.conditioner.calibrate(trained.encoder(eeg_NCT), 0.0, std)

    def trainable_table(self) -> list[dict[str, object]]:
        """Part, parameters, of which trained, share."""
        return trainable_table(self.module)

    def parameter_groups(self, weight_decay: float) -> list[ParameterGroup]:
        """AdamW groups: encoder, conditioner and U-Net with their own rates; vectors and scalars are not decayed."""
        groups: list[ParameterGroup] = []
        for name, scale in (
            ("encoder", self.config.optim.lr_encoder),
            ("conditioner", self.config.optim.lr_conditioner),
            ("unet", 1.0),
        ):
            params = [p for p in getattr(self.module, name).parameters() if p.requires_grad]
            for chosen, decay in (([p for p in params if p.ndim > 1], weight_decay), ([p for p in params if p.ndim <= 1], 0.0)):
                if chosen:
                    groups.append({"params": chosen, "weight_decay": decay, "lr_scale": scale, "name": name})
        return groups

    # --- loop.Task

    def identity(self) -> Mapping[str, Any]:
        """Configuration and digests of all inputs."""
        return self._identity

    def current_identity(self, stored: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Task`. In 0.1.0 the rates of the parts lay outside the optimiser's settings."""
        config = current_form(FinetuneConfig, stored.get("config", {}))
        if "start" in config and "adapter" not in stored.get("config", {}).get("start", {}):
            config["start"]["adapter"] = "captions"  # a run from before there were adapters
        rates = {key: config["optim"][key] for key in ("lr_encoder", "lr_conditioner")} if "optim" in config else {}
        return {**stored, "config": learned_settings(config), "optim": {**rates, **stored.get("optim", {})}}

    def stream(self, rank: int, world_size: int) -> PairStream:
        """Training trials."""
        return PairStream(self.data, self.config.data.batch_size, self.config.loop.seed, rank, world_size)

    def step(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        """All losses of one batch; noise, time step and dropped EEG are functions of the trial and the epoch."""
        return self._losses({name: value for name, value in batch.items() if name != "index"}, self._random(batch, draw))

    def _random(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        """All random numbers of a step, drawn outside of what is compiled."""
        config, random = self.config.losses, {}
        if config.w_sd:
            shape = (batch["moments"].shape[1] // 2, *batch["moments"].shape[2:])
            random = {"latent": draw.normal("latent", *shape), "noise": draw.normal("noise", *shape),
                      "step": draw.integers("step", len(self.schedule))}  # fmt: skip
            if config.guidance_dropout:
                random["dropped"] = draw.uniform("guidance") < config.guidance_dropout
        return random

    def _losses(self, batch: Batch, random: Mapping[str, Tensor]) -> dict[str, Tensor]:
        schedule = self._schedule(batch["eeg"].device)
        return losses_of(self.module, self.config, schedule, self.scaling_factor, batch, random)

    def _schedule(self, device: torch.device) -> NoiseSchedule:
        if self.schedule.alpha_bar_S.device != device:
            self.schedule = self.schedule.to(device)
        return self.schedule

    @torch.no_grad()
    def validate(self, device: torch.device) -> dict[str, float]:
        """Losses on validation trials with noise that never changes, and how often h(y) is nearest to its own class's images.

        When these weights are the best so far they are kept in `best/`. Test trials are never read.
        """
        held_out = self.data.parts["val"]
        positions = held_out[spread(len(held_out), self.config.validation.validate_trials)]  # trials lie in order of people
        if len(positions) == 0:
            return {}
        sums: dict[str, float] = {}
        hits = 0.0
        for start in range(0, len(positions), self.config.data.batch_size):
            chosen = positions[start : start + self.config.data.batch_size]
            batch = {name: send(value, device) for name, value in self.data.batch(chosen).items()}
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
        trained = self.module
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
        if self.config.validation.select == "last":
            return
        select = self.config.validation.select
        score = -numbers["clip_accuracy"] if select == "clip-accuracy" else numbers["loss"]
        facts = {"select": select, **{f"val_{k}": repr(v) for k, v in numbers.items()}}
        keep_if_best(self.run_dir, self.module, score, facts)

    def pictures(self, run_dir: Path, device: torch.device) -> None:
        """`preview.png`: a few validation trials, the image seen on the left, the image generated on the right."""
        positions = self.data.parts["val"] if len(self.data.parts["val"]) else self.data.parts["train"]
        positions = positions[spread(len(positions), self.config.validation.preview_trials)]
        if len(positions) == 0:
            return
        pipe = self.pipeline()
        pipe.set_progress_bar_config(disable=True)
        vae = cast(Any, self.model.vae)
        home = place_of(vae)[0]
        vae.to(device)
        # by trial: the same picture from validation to validation, as far as the weights are the same
        generators = [torch.Generator().manual_seed(int(p)) for p in positions]
        precision = precision_for(self.config.loop)
        with mixed("bf16" if precision == "bf16" else "fp32", device):
            made = cast(
                Any,
                pipe(
                    self.data.pairs.eeg(positions),
                    num_inference_steps=10,
                    guidance_scale=1.0,
                    generator=generators,
                    output_type="np",
                ),
            ).images
        vae.to(home)  # training needs no VAE, and its room on the card
        seen = self.data.pairs.images(positions, size=self.image_size)
        rows = [np.concatenate([a, (b * 255).round().astype(np.uint8)], axis=1) for a, b in zip(seen, made, strict=True)]
        pairs = self.data.pairs
        origin = picture_origin(
            pipe.details.training, model=run_dir.name, generator=self.model.source, eeg=pairs.provenance, licence=pairs.licence
        )
        sheet = np.concatenate([caption_strip(origin.sentence, rows[0].shape[1]), *rows])
        write_png(run_dir / "preview.png", sheet, origin.notes())

    def pipeline(self) -> DreamDiffusionPipeline:
        """The current weights as a pipeline (sharing them)."""
        config, trained, pairs = self.config, self.module, self.data.pairs
        details = PipelineConfig(
            guidance=config.losses.guidance if config.losses.guidance_dropout else 1.0,
            guidance_trained=config.losses.guidance_dropout > 0,
            image_size=self.image_size,
            signal=self.signal,
            classes=tuple(pairs.classes),
            training={"pairs": pairs.fingerprint, "pairs_content": pairs.content_sha256, "provenance": pairs.provenance,
                      "split": config.data.split, "trains": config.what.trains, "train_encoder": config.what.train_encoder,
                      "sd": portable(self.model.source, self.run_dir / FOLDER), "select": config.validation.select, "licence": pairs.licence,
                      "generator_licence": generator_licence(generator_name(self.model.source)),
                      "seen": [*self.seen, seen_in_pairs(pairs, self.data.parts["train"])]},
        )  # fmt: skip
        scheduler = make_scheduler("dpm-solver++", cast(Any, self.model.scheduler).config)
        trained.encoder.signal = details.signal  # it knows this EEG now
        return DreamDiffusionPipeline(
            cast(Any, trained.unet), self.model.vae, scheduler, trained.encoder, trained.conditioner, details
        )

    @property
    def signal(self) -> SignalConfig:
        """The EEG that is trained on: of several rates, each with its training trials."""
        pairs, train = self.data.pairs, self.data.parts["train"]
        signal = signal_of([pairs.attributes[name] for name in pairs.subjects], pairs.recipe.get("settings"))
        rates = [float(pairs.attributes[name].get("sfreq") or np.nan) for name in pairs.subjects]
        trials = np.bincount(pairs.person[train], minlength=len(rates)).tolist()
        result = shares(count_rates(zip(rates, trials, strict=True)))
        if not result:
            return signal
        own = result[0].sfreq
        return signal.model_copy(update={"sfreq": own, "rates": result, "window_ms": 1000 * pairs.eeg_shape[1] / own})

    def export(self, run_dir: Path) -> None:
        """Write `pipeline/`, with the weights that did best on the validation trials."""
        best = best_file(run_dir)
        if self.config.validation.select != "last" and best.is_file():
            load_trained(self.module, best)
        self.frozen.restore(self.module.unet)
        pipe = self.pipeline()
        if self.config.what.trains == "lora":
            pipe.unet = copy.deepcopy(pipe.unet)  # the run may go on; its adapters stay apart
            merge_lora(pipe.unet)
        pipe.save_pretrained(run_dir / FOLDER)
