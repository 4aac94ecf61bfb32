"""Image encoders that EEG can be aligned to, frozen, by name:

    embedded, clip:NAME     a CLIP image tower, see `diffusion.clip.load_clip`
    efficientnet-lite0      ImageNet features from a registry package, 1,280 numbers
    timm:NAME[:FILE]        any timm model without its classifier; downloads unless FILE holds the weights
    dir:FOLDER              a transformers folder (DINOv2, CLIP, SigLIP, ViT, ...), read locally, safetensors only
    vectors:FILE            npz with `sha256` (n hashes of images as in the pairs) and `vectors` (n, D)

Vectors are as long as the encoder makes them: a frozen generator reads them so. Nothing of test images is ever asked for here.
Shapes: M images, D width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dreamdiff.alignment.model import TargetSpace
from dreamdiff.devices import fitting_batch, mixed
from dreamdiff.diffusion.clip import BYTES_OF_IMAGE, load_clip
from dreamdiff.metrics.judges import load_classifier
from dreamdiff.pairs.encoding import read_each, shared_rows
from dreamdiff.pairs.image_cache import shared_cache
from dreamdiff.pairs.reader import Pairs
from dreamdiff.untrusted.arrays import load_npz
from eegprep.errors import CheckpointError, DataError, ModelError
from eegprep.provenance import sha256, sha256_file, sha256_json
from eegprep.recording import ProgressCallback

Images = Sequence[np.ndarray]
KINDS = ("embedded", "clip:NAME", "efficientnet-lite0", "timm:NAME", "dir:FOLDER", "vectors:FILE")


@dataclass(frozen=True)
class ImageTarget:
    """A frozen image encoder.

    compute: images (uint8 RGB, any sizes) and their hashes -> (M, D) float32. fingerprint: weights and preprocessing; two that are
    equal give equal vectors. cached: whether computing is worth keeping. batch: images at a time, as the device
    allows. cache_key: of kept vectors, where they are not computed in fp32.
    """

    name: str
    fingerprint: str
    compute: Callable[[Images, Sequence[str]], np.ndarray]
    remarks: tuple[str, ...] = ()
    cached: bool = True
    batch: int = 16
    cache_key: str = ""

    def space(self, width: int) -> TargetSpace:
        """What a model stores about it."""
        return TargetSpace(name=self.name, fingerprint=self.fingerprint, width=width)


def load_target(name: str, *, device: torch.device | str = "cpu", precision: str = "fp32", offline: bool = False) -> ImageTarget:
    """Load a target by name, on a device; vectors of another precision than fp32 are kept apart in caches.

    Raises:
        ModelError: an unknown name, missing weights, or a download that `offline` forbids.
    """
    result = _load(name, device, offline)
    if precision == "fp32" or not result.cached:
        return result

    def compute(images: Images, digests: Sequence[str]) -> np.ndarray:
        with mixed(precision, torch.device(device)):
            return result.compute(images, digests)

    return replace(result, compute=compute, cache_key=f"{result.fingerprint}/{precision}")


def _load(name: str, device: torch.device | str, offline: bool) -> ImageTarget:
    kind, _, rest = name.partition(":")
    if name == "embedded" or kind == "clip":
        return _clip(name, rest or "embedded", device, offline)
    if name == "efficientnet-lite0":
        return _lite0(name, device)
    if kind == "timm" and rest:
        return _timm(name, rest, device, offline)
    if kind == "dir" and rest:
        return _folder(name, Path(rest).expanduser(), device)
    if kind == "vectors" and rest:
        return _vectors(name, Path(rest).expanduser())
    raise ModelError(f"there is no target {name!r}", f"use one of: {', '.join(KINDS)}")


def image_vectors(
    pairs: Pairs, numbers: np.ndarray, target: ImageTarget, root: Path, progress: ProgressCallback | None = None
) -> np.ndarray:
    """(M, D) float32 vectors of these images of a store, computed once and kept in the store `root`."""
    digests = [pairs.image_sha256[number] for number in numbers]

    def compute(chosen: Sequence[int]) -> np.ndarray:
        rows = [int(row) for row in chosen]
        return target.compute(read_each(pairs, [numbers[row] for row in rows]), [digests[row] for row in rows])

    if not target.cached:
        return target.compute([], digests)
    key = hashlib.sha256(target.cache_key.encode()).hexdigest() if target.cache_key else target.fingerprint
    rows = shared_rows(
        root, "vectors", key, digests, compute, batch=target.batch, progress=progress, also=shared_cache(pairs.path)
    )
    return rows.read(np.arange(len(numbers)))


def _clip(name: str, source: str, device: torch.device | str, offline: bool) -> ImageTarget:
    clip = load_clip(source, offline=offline)
    clip.model.to(device)
    fingerprint = sha256(f"{clip.fingerprint}/unnormalised")
    return ImageTarget(
        name, fingerprint, lambda images, _: clip.encode_images(images, normalise=False).numpy(), tuple(clip.remarks),
        batch=_batch(device),
    )  # fmt: skip


def _lite0(name: str, device: torch.device | str) -> ImageTarget:
    network = load_classifier(name)
    network.backbone.to(device)
    network.head.to(device)
    files = tuple(f"{file}: SHA-256 {digest}" for file, digest in network.files.items())
    fingerprint = sha256_json({"kind": name, "files": sorted(network.files.values())}, blanks=True)
    return ImageTarget(
        name,
        fingerprint,
        lambda images, _: _each_size(images, lambda x: network.read(x).features_ND),
        files,
        batch=_batch(device),
    )


def _timm(name: str, rest: str, device: torch.device | str, offline: bool) -> ImageTarget:
    import timm

    architecture, _, file = rest.partition(":")
    if architecture.partition(".")[0] not in timm.list_models():
        raise ModelError(f"timm knows no model {architecture!r}", "see timm.list_models()")
    if not file and offline:
        raise ModelError(
            f"--target {name} downloads its weights, and this run is offline", f"give timm:{architecture}:FILE with a local file"
        )
    options: dict[str, Any] = {"pretrained_cfg_overlay": {"file": str(_existing(Path(file).expanduser(), name))}} if file else {}
    try:
        network = timm.create_model(architecture, pretrained=True, num_classes=0, **options)
    except Exception as error:  # the hub client, HTTP libraries and torch each raise their own kind
        raise ModelError(
            f"--target {name}: the weights could not be loaded ({str(error).strip()[:200]})",
            f"give timm:{architecture}:FILE with the weights of that model",
        ) from None
    content = timm.data.resolve_model_data_config(network)
    transform = timm.data.create_transform(**content, is_training=False)
    network = network.eval().requires_grad_(False).to(device)
    weights = sha256_file(Path(file).expanduser()) if file else _weights_digest(network)
    # interpolation modes and the like are no JSON; their names say the same
    plain = json.loads(json.dumps(content, default=str))

    @torch.no_grad()
    def compute(images: Images, _: Sequence[str]) -> np.ndarray:
        pixels = torch.stack([transform(Image.fromarray(image)) for image in images])
        return network(pixels.to(device)).flatten(1).float().cpu().numpy()

    return ImageTarget(
        name, sha256_json({"timm": architecture, "weights": weights, "data": plain}, blanks=True), compute, batch=_batch(device)
    )


def _folder(name: str, folder: Path, device: torch.device | str) -> ImageTarget:
    """A transformers folder. `image_embeds` where the model has them (CLIP with projection), else the pooled output, else CLS."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, CLIPVisionModelWithProjection

    _existing(folder / "config.json", name)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder}: holds no .safetensors weights", "convert the weights to safetensors")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        kind: Any = CLIPVisionModelWithProjection if config.model_type in ("clip", "clip_vision_model") else AutoModel
        network = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"{folder}: not a model that transformers can read here ({str(error).strip().splitlines()[0][:200]})",
            "copy config.json, preprocessor_config.json and the safetensors of one model into it",
        ) from None
    # of a model of images and texts, the half that reads images
    network = getattr(network, "vision_model", network) if not hasattr(network, "visual_projection") else network
    network = network.eval().requires_grad_(False).to(device)
    preprocessing = processor.to_dict()
    weights = [sha256_file(file) for file in files]

    @torch.no_grad()
    def compute(images: Images, _: Sequence[str]) -> np.ndarray:
        pixels = processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")["pixel_values"]
        out = network(pixel_values=pixels.to(device))
        for field in ("image_embeds", "pooler_output"):
            if getattr(out, field, None) is not None:
                return getattr(out, field).flatten(1).float().cpu().numpy()
        return out.last_hidden_state[:, 0].float().cpu().numpy()

    content = json.loads(json.dumps(preprocessing, default=str))
    return ImageTarget(
        name,
        sha256_json({"model": config.model_type, "weights": weights, "preprocess": content}, blanks=True),
        compute,
        batch=_batch(device),
    )


def _vectors(name: str, file: Path) -> ImageTarget:
    _existing(file, name)
    try:
        content = load_npz(file)
        digests, vectors = [str(digest) for digest in content["sha256"]], np.asarray(content["vectors"], np.float32)
    except (CheckpointError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{file}: not an npz file with `sha256` and `vectors` ({getattr(error, 'problem', error)})",
            "write numpy.savez(FILE, sha256=pairs.image_sha256, vectors=vectors)",
        ) from None
    if vectors.ndim != 2 or len(vectors) != len(digests) or not np.isfinite(vectors).all():
        raise ModelError(
            f"{file}: {len(digests)} hashes and vectors of shape {vectors.shape}, finite: {bool(np.isfinite(vectors).all())}",
            "give one finite vector for each image hash",
        )
    row = {digest: number for number, digest in enumerate(digests)}

    def compute(_: Images, requested: Sequence[str]) -> np.ndarray:
        missing = [digest for digest in requested if digest not in row]
        if missing:
            raise DataError(
                f"{file}: has no vector for {len(missing)} of {len(requested)} images (first: SHA-256 {missing[0][:12]})",
                "add their vectors, under the hashes of the pairs (`Pairs.image_sha256`)",
            )
        return vectors[[row[digest] for digest in requested]]

    return ImageTarget(name, sha256_file(file), compute, cached=False)


def _batch(device: torch.device | str) -> int:
    return fitting_batch(torch.device(device), BYTES_OF_IMAGE, least=16, most=512)


def _each_size(images: Images, read: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Images of different sizes cannot be one array: one at a time then."""
    if len({image.shape for image in images}) == 1:
        return np.asarray(read(np.stack(images)), np.float32)
    return np.concatenate([np.asarray(read(image[None]), np.float32) for image in images])


def _existing(path: Path, name: str) -> Path:
    if not path.exists():
        raise ModelError(f"--target {name}: there is no file {path}", "check the path")
    return path


def _weights_digest(network: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for key, tensor in sorted(network.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()
