"""Commands that train, make pictures and judge them, with models of the size of the tests, and what they leave on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import recordings
import torch
from campaign import Command, Hostile, Stored
from harness import Ended, tree
from PIL import Image
from tiny_models import CLIP_WIDTH, CONTEXT_WIDTH, tiny_clip, tiny_stable_diffusion
from tiny_pairs import CHANNELS, CLASSES, SAMPLES, tiny_pairs

import eegprep
from dreamdiff.alignment.adapt import adapt
from dreamdiff.alignment.config import ALIGN_PRESETS, AlignConfig
from dreamdiff.alignment.epochs import EPOCHS, epoch_files
from dreamdiff.alignment.model import AlignedEncoder
from dreamdiff.alignment.prepare import align
from dreamdiff.certificates.check import check_report
from dreamdiff.diffusion.conditioner import Conditioner, ConditionerConfig
from dreamdiff.diffusion.noise import make_scheduler
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline, PipelineConfig
from dreamdiff.diffusion.stable_diffusion import load_stable_diffusion
from dreamdiff.encoders.config import EncoderConfig
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.evaluation.evaluate import evaluate
from dreamdiff.evaluation.retrieve import retrieve
from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
from dreamdiff.finetuning.prepare import finetune
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.generation.files import generate_to_folder, replay
from dreamdiff.pairs.decoding import decode_image
from dreamdiff.pairs.image_cache import cached_rows
from dreamdiff.pairs.importers.importer import ImportConfig
from dreamdiff.pairs.importers.run import import_pairs
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pretraining.config import PRETRAIN_PRESETS, PretrainConfig
from dreamdiff.pretraining.pretrain import pretrain
from dreamdiff.programs.convert import convert_any
from dreamdiff.protocols.config import EvaluateConfig, RetrieveConfig
from dreamdiff.simulation.config import SimulateConfig
from dreamdiff.simulation.images import ImageSet
from dreamdiff.simulation.simulate import simulate
from dreamdiff.untrusted.tensors import load_tensors
from eegprep.settings import resolve

torch.set_num_threads(1)


def weights(out: Path) -> dict[str, str]:
    """What must not depend on kills: weights and configuration at the end of a run, not logs with times, nor which checkpoints are kept."""
    found = tree(out)
    return {
        name: digest
        for name, digest in found.items()
        if name.endswith((".safetensors", "config.json", "model_index.json", "dreamdiff.json"))
        and not name.startswith("checkpoints/")
    }


def _beside(out: Path) -> Path:
    """A folder for what is cached: it is attacked as well, and emptied with the output."""
    return out / ".cache"


# ---------------------------------------------------------------------------------------------------------- training


def _corpus(inputs: Path) -> None:
    eegprep.build(recordings.people(inputs / "rec", 1), inputs / "c.zarr")


def _pretrain(inputs: Path, out: Path) -> None:
    settings = [
        "loop.max_steps=12",
        "loop.tracker=none",
        "loop.device=cpu",
        "loop.checkpoint_steps=3",
        "data.batch_size=4",
        "data.validation=none",
    ]
    pretrain(str(inputs / "c.zarr"), out, resolve(PretrainConfig, presets=PRETRAIN_PRESETS, preset="tiny", assignments=settings))


def _encoder(folder: Path) -> Path:
    torch.manual_seed(0)
    EEGEncoder(EncoderConfig(channels=CHANNELS, window=SAMPLES, width=16, depth=1, heads=2)).save_pretrained(folder)
    return folder


def prepare_parts(inputs: Path) -> None:
    tiny_pairs(inputs / "pairs.zarr", per_class=8)
    tiny_stable_diffusion(inputs / "sd")
    tiny_clip(inputs / "clip")
    _encoder(inputs / "encoder")


def _finetune(inputs: Path, out: Path) -> None:
    settings = [
        "loop.max_steps=4",
        "loop.device=cpu",
        "loop.checkpoint_steps=1",
        "validation.preview_trials=0",
        f"data.cache={_beside(out)}",
    ]
    config = resolve(FinetuneConfig, presets=FINETUNE_PRESETS, preset="tiny", assignments=settings)
    finetune(inputs / "pairs.zarr", str(inputs / "encoder"), str(inputs / "sd"), str(inputs / "clip"), out, config, offline=True)


def _vectors(pairs: Path, file: Path) -> None:
    store = Pairs.open(pairs)
    vectors = np.random.default_rng(0).normal(size=(len(store.image_sha256), 12)).astype(np.float32)
    np.savez(file, sha256=np.array(store.image_sha256), vectors=vectors)


def _align_config(out: Path, preset: str = "tiny") -> AlignConfig:
    settings = ["front.seconds=0.4", "loop.device=cpu", "loop.max_steps=8", "loop.checkpoint_steps=2", f"cache={_beside(out)}"]
    return resolve(AlignConfig, presets=ALIGN_PRESETS, preset=preset, assignments=settings)


def _alignable(inputs: Path) -> None:
    tiny_pairs(inputs / "pairs.zarr", per_class=16)
    _vectors(inputs / "pairs.zarr", inputs / "vectors.npz")


def _align(inputs: Path, out: Path) -> None:
    align(inputs / "pairs.zarr", out, _align_config(out), targets=(f"vectors:{inputs / 'vectors.npz'}",), offline=True)


def _aligned(inputs: Path) -> None:
    _alignable(inputs)
    _align(inputs, inputs / "aligned")


def _adapt(inputs: Path, out: Path) -> None:
    adapt(inputs / "aligned", inputs / "pairs.zarr", out, _align_config(out, "adapt"), offline=True)


# ---------------------------------------------------------------------------------------------------------- pictures


def _pipeline(folder: Path) -> None:
    """Pairs, and a pipeline folder with random weights that reads them."""
    tiny_pairs(folder / "pairs.zarr", per_class=8)
    parts = load_stable_diffusion(str(tiny_stable_diffusion(folder / "sd")))
    encoder = EEGEncoder.from_pretrained(_encoder(folder / "encoder"))
    conditioner = Conditioner(
        ConditionerConfig(tokens_in=encoder.tokens, width_in=16, context_width=CONTEXT_WIDTH, clip_width=CLIP_WIDTH)
    )
    details = PipelineConfig(classes=tuple(f"class {k}" for k in range(CLASSES)))
    scheduler = make_scheduler("dpm-solver++", parts.scheduler.config)
    DreamDiffusionPipeline(parts.unet, parts.vae, scheduler, encoder, conditioner, details).save_pretrained(folder / "model")


def _generate(inputs: Path, out: Path) -> None:
    generate_to_folder(
        inputs / "model", inputs / "pairs.zarr", out, GenerateConfig(steps=2, batch_size=2, device="cpu"), select="test"
    )


def _evaluate(inputs: Path, out: Path) -> None:
    config = EvaluateConfig(steps=1, samples=1, trials=4, batch_size=2, certificate_trials=2, clip="none", draws=2)
    evaluate(inputs / "model", inputs / "pairs.zarr", out, config)


def _retrieve(inputs: Path, out: Path) -> None:
    retrieve(inputs / "aligned", inputs / "pairs.zarr", out, RetrieveConfig(device="cpu", repetitions=("1",)), offline=True)


# -------------------------------------------------------------------------------------------------------------- data


def _table(inputs: Path) -> None:
    """A recording, four pictures and a table of trials."""
    (inputs / "a.edf").write_bytes(recordings.edf(40, 128, 7))
    draw = np.random.default_rng(0)
    lines = ["recording,onset,image,label"]
    for number in range(8):
        Image.fromarray(draw.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(inputs / f"{number % 4}.png")
        lines.append(f"a.edf,{4 * number + 1},{number % 4}.png,{'cat' if number % 2 else 'dog'}")
    (inputs / "trials.csv").write_text("\n".join(lines) + "\n")


def _import(inputs: Path, out: Path) -> None:
    import_pairs(inputs / "trials.csv", out, ImportConfig(kind="table", low=1, high=40, split_by="trial"))


def _image_set() -> ImageSet:
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 6)
    pixels = draw.integers(0, 255, (len(labels), 16, 16, 3), dtype=np.uint8)
    names = tuple(f"image-{number}" for number in range(len(labels)))
    features = draw.normal(size=(4, 32))[labels] + draw.normal(size=(len(labels), 32))
    return ImageSet(pixels, labels, names, np.arange(len(labels)) % 3 == 0, ("banana", "daisy", "pizza", "canoe"), features)


def _simulate(_: Path, out: Path) -> None:
    simulate(out, SimulateConfig(sources="linear", snr=0, people=1, trials=3, background="pink"), images=_image_set())


def _compvis(inputs: Path) -> None:
    torch.manual_seed(0)
    from dreamdiff.encoders.mae import MaskedSignalModel, masked_signal_preset
    from dreamdiff.programs.convert import export_pretrained

    MaskedSignalModel(masked_signal_preset("tiny")).save_pretrained(inputs / "model")
    export_pretrained(inputs / "model", inputs / "theirs.pth")


COMMANDS = [
    Command("train msm", _corpus, _pretrain, weights, share=0.5),
    Command("train finetune", prepare_parts, _finetune, weights, share=0.3),
    Command("train align", _alignable, _align, weights, share=0.5),
    Command("adapt", _aligned, _adapt, weights, share=0.5),
    Command("generate", _pipeline, _generate, share=0.5),
    Command("evaluate", _pipeline, _evaluate, share=0.2),
    Command("retrieve", _aligned, _retrieve, share=0.5),
    Command("pairs import", _table, _import, share=0.5),
    Command("pairs simulate", lambda inputs: None, _simulate, share=0.3),
    Command("convert", _compvis, lambda inputs, out: convert_any(inputs / "theirs.pth", out), share=0.5),
]

# ------------------------------------------------------------------------------------------------------------- stores


def _cache(folder: Path) -> Path:
    rows, digests = _rows()
    for first in (0, 12):
        cached_rows(folder / "cache.zarr", "latents", "k" * 16, digests[: first + 12], lambda chosen: rows[list(chosen)], batch=4)
    return folder / "cache.zarr"


def _rows() -> tuple[np.ndarray, list[str]]:
    return np.random.default_rng(0).normal(size=(24, 4, 4)).astype(np.float32), [f"{number:064x}" for number in range(24)]


def _read_cache(path: Path) -> Any:
    """Rows of all images; what the cache does not know is computed again, as a run does."""
    rows, digests = _rows()
    return cached_rows(path, "latents", "k" * 16, digests, lambda chosen: rows[list(chosen)], batch=4).read(range(24)).tobytes()


def _made_pipeline(folder: Path) -> Path:
    _pipeline(folder)
    return folder / "model"


def _read_pipeline(path: Path) -> Any:
    """Every weight and every setting that generating uses."""
    pipe = DreamDiffusionPipeline.from_pretrained(path)
    weights = [
        tensor.numpy().tobytes()
        for part in (pipe.unet, pipe.vae, pipe.encoder, pipe.conditioner)
        for _, tensor in sorted(part.state_dict().items())
    ]
    return weights, json.dumps(dict(pipe.scheduler.config), default=str, sort_keys=True), pipe.details.model_dump_json()


def _made_aligned(folder: Path) -> Path:
    _aligned(folder)
    return folder / "aligned"


def _read_aligned(path: Path) -> Any:
    model = AlignedEncoder.from_pretrained(path)
    return [tensor.numpy().tobytes() for _, tensor in sorted(model.state_dict().items())], model.config.model_dump_json()


def _model_files(path: Path) -> list[Path]:
    """What a model is read from; logs and checkpoints of the run beside it are read by other commands."""
    return [path / name for name in ("model.safetensors", "config.json")]


def _unfinished(folder: Path) -> Path:
    """A run of `train align` that has to go on from its checkpoints: the finished model is taken away."""
    _alignable(folder)
    _align(folder, folder / "run")
    for name in ("model.safetensors", "config.json"):
        (folder / "run" / name).unlink(missing_ok=True)
    newest = max((folder / "run" / "checkpoints").glob("step-*"))
    shutil.rmtree(newest)  # there are steps left to do
    return folder / "run"


def _resume(path: Path) -> Any:
    """The weights at the end of the run, continued from a copy: reading must not change what is read; and its epochs, as `retrieve` reads them."""
    copy = path.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path, copy)
    align(
        path.parent / "pairs.zarr", copy, _align_config(path), targets=(f"vectors:{path.parent / 'vectors.npz'}",), offline=True
    )
    ends = {name: digest for name, digest in weights(copy).items() if not name.startswith(f"{EPOCHS}/")}
    kept = {file.name: [tensor.numpy().tobytes() for tensor in load_tensors(file).values()] for file in epoch_files(path)}
    return ends, kept


def _pictures(folder: Path) -> Path:
    _pipeline(folder)
    _generate(folder, folder / "out")
    return folder / "out"


def _read_pictures(path: Path) -> Any:
    """Sidecars and pixels that the same command leaves: altered ones are made again."""
    _generate(path.parent, path)
    pixels = {file.name: decode_image(file.read_bytes(), file.name).tobytes() for file in sorted(path.glob("*.png"))}
    return pixels, [file.read_bytes() for file in sorted(path.glob("*.json"))]


def _imported(folder: Path) -> Path:
    _table(folder)
    _import(folder, folder / "p.zarr")
    return folder / "p.zarr"


def _read_imported(path: Path) -> Any:
    pairs = Pairs.open(path)
    pictures = [picture.tobytes() for picture in pairs.load_images(np.arange(len(pairs.image_names)), size=16)]
    columns = [getattr(pairs, name).tobytes() for name in ("person", "image", "labels", "block", "session", "trial", "onset")]
    return columns, pictures, pairs.eeg().tobytes(), pairs.classes, json.dumps(pairs.attributes, sort_keys=True, default=str)


def _report(folder: Path) -> Path:
    _aligned(folder)
    _retrieve(folder, folder / "report")
    return folder / "report"


def _read_report(path: Path) -> Any:
    """What `dreamdiff evaluate --check` vouches for."""
    found = check_report(path)
    return found.accuracies, found.hashes, found.sentence


STORES = [
    Stored("image cache", _cache, _read_cache, share=0.7),
    Stored("pipeline folder", _made_pipeline, _read_pipeline),
    Stored("aligned model", _made_aligned, _read_aligned, _model_files, share=0.5),
    Stored("checkpoints of a run", _unfinished, _resume, share=0.4),
    Stored("generated pictures", _pictures, _read_pictures, share=0.4),
    Stored(
        "pairs with image files",
        _imported,
        _read_imported,
        lambda path: [*(f for f in sorted(path.rglob("*")) if f.is_file()), *sorted(path.parent.glob("*.png"))],
    ),
    Stored("report", _report, _read_report, share=0.3),
]

# ------------------------------------------------------------------------------------------------- files of strangers


def _refused(ended: Ended) -> bool:
    return ended.kind == "refused"


def _altered(make: Callable[[Path], Path], name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Something that was made, with one file of it changed."""

    def build(folder: Path) -> None:
        file = make(folder) / name
        file.write_bytes(change(file.read_bytes()))

    return build


def _set(**values: Any) -> Callable[[bytes], bytes]:
    """Other values in a JSON file."""
    return lambda content: json.dumps({**json.loads(content), **values}).encode()


_JSONS: dict[str, Callable[[bytes], bytes]] = {
    "deep": lambda _: b'{"a":' * 10**6 + b"1" + b"}" * 10**6,
    "a list": lambda _: b"[1]",
    "empty": lambda _: b"",
    "no UTF-8": lambda _: b'{"version": "\xff"}',
    "a number of a million digits": lambda _: b'{"version": ' + b"9" * 10**6 + b"}",
}


def _replay(folder: Path) -> Any:
    return str(replay(next((folder / "out").glob("trial-*.json")), folder / "again"))


def _sidecar(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        file = next(_pictures(folder).glob("trial-*.json"))
        file.write_bytes(change(file.read_bytes()))

    return build


HOSTILE = [
    *(Hostile(f"sidecar: {name}", _sidecar(change), _replay, _refused) for name, change in _JSONS.items()),
    *(
        Hostile(f"model folder: {file}, {name}", _altered(_made_pipeline, file, change), lambda folder: _read_pipeline(folder / "model") and None, _refused)
        for file in ("model_index.json", "dreamdiff.json", "unet/config.json", "encoder/config.json", "scheduler/scheduler_config.json")
        for name, change in _JSONS.items()
    ),
    Hostile("model folder: a U-Net of 10^6 layers", _altered(_made_pipeline, "unet/config.json", _set(layers_per_block=10**6)), lambda folder: _read_pipeline(folder / "model") and None, _refused),
    Hostile("model folder: a U-Net of 10^9 channels", _altered(_made_pipeline, "unet/config.json", _set(block_out_channels=[10**9, 10**9])), lambda folder: _read_pipeline(folder / "model") and None, _refused),
    *(
        Hostile(f"aligned model: config.json, {name}", _altered(_made_aligned, "config.json", change), lambda folder: _read_aligned(folder / "aligned") and None, _refused)
        for name, change in _JSONS.items()
    ),
    *(
        Hostile(f"report: {name}", _altered(_report, "report.json", change), lambda folder: _read_report(folder / "report") and None, _refused)
        for name, change in _JSONS.items()
    ),
]  # fmt: skip
