"""Image adapters: which vectors they read, whether they fit a run and a U-Net, and their tensors.

An adapter stays a file of its own beside the generator. Saved inside a U-Net it is lost: diffusers writes its tensors into the U-Net's
file and drops them when it reads that file again.

Shapes: N pictures, K captions, L text tokens, D width of an image vector, W width of a context token.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegprep.errors import CheckpointError, ModelError
from eegprep.provenance import sha256_file
from eegprep.sealed import read_object

TENSORS, DETAILS = "ip_adapter.safetensors", "adapter.json"
FORMAT = "dreamdiff-adapter"
TOKENS = 4  # of an IP-Adapter that reads one vector (Ye et al. 2023)
VIT_H, VIT_G = "ViT-H-14:laion2b_s32b_b79k", "ViT-bigG-14:laion2b_s39b_b160k"


@dataclass(frozen=True)
class VectorSpace:
    """Whose vectors: name of the image encoder as in `train align --target`, width, and digest of its weights where known."""

    name: str
    width: int
    fingerprint: str | None = None

    @property
    def encoder(self) -> str:
        """The name without "clip:"."""
        return self.name.removeprefix("clip:")


@dataclass(frozen=True)
class KnownAdapter:
    """A published adapter or decoder: what it reads, what it works with, megabytes and licence."""

    name: str
    image_encoder: str
    width: int
    generator: str
    megabytes: int
    licence: str


KNOWN = (
    KnownAdapter("h94/IP-Adapter models/ip-adapter_sd15", VIT_H, 1024, "Stable Diffusion 1.5", 45, "Apache-2.0"),
    KnownAdapter("h94/IP-Adapter models/ip-adapter_sd15_light", VIT_H, 1024, "Stable Diffusion 1.5", 45, "Apache-2.0"),
    KnownAdapter("h94/IP-Adapter models/ip-adapter_sd15_vit-G", VIT_G, 1280, "Stable Diffusion 1.5", 46, "Apache-2.0"),
    KnownAdapter("h94/IP-Adapter sdxl_models/ip-adapter_sdxl_vit-h", VIT_H, 1024, "SDXL, SDXL-Turbo", 698, "Apache-2.0"),
    KnownAdapter("h94/IP-Adapter sdxl_models/ip-adapter_sdxl", VIT_G, 1280, "SDXL, SDXL-Turbo", 703, "Apache-2.0"),
    KnownAdapter("kandinsky-community/kandinsky-2-2-decoder", VIT_G, 1280, "itself; needs no adapter", 5300, "Apache-2.0"),
    KnownAdapter("stabilityai/stable-diffusion-2-1-unclip", VIT_H, 1024, "itself; needs no adapter", 5200, "OpenRAIL++-M"),
    KnownAdapter("embedded", "embedded", 128, "embedded", 1, "MIT"),
)


@dataclass(frozen=True)
class Words:
    """Text states weighted by how near their key is to the image's direction: (K, D) keys, (K, L, W) states."""

    keys_KD: Tensor
    states_KLW: Tensor
    sharpness: float

    def __call__(self, direction_BD: Tensor) -> Tensor:
        """(B, L, W)."""
        weight_BK = (self.sharpness * direction_BD @ self.keys_KD.T).softmax(dim=1)
        return torch.einsum("bk,klw->blw", weight_BK, self.states_KLW)


@dataclass(frozen=True)
class ImageAdapter:
    """An IP-Adapter and what belongs to it.

    reads: the vectors it was trained on. tensors: `image_proj.*` and `ip_adapter.*`, the layout of diffusers and of the published
    files. mean_D: the adapter reads the unit direction from here instead of the vector itself; None: the vector as it is.
    words: text states beside it, chosen by the vector. bank_ND: vectors of its training pictures, for the prior.
    """

    source: str
    reads: VectorSpace
    tensors: dict[str, Tensor]
    licence: str = "unknown"
    mean_D: Tensor | None = None
    words: Words | None = None
    bank_ND: Tensor | None = None
    files: dict[str, str] = field(default_factory=dict)

    def direction(self, vectors_BD: Tensor) -> Tensor:
        """What the adapter reads of image vectors."""
        return vectors_BD if self.mean_D is None else F.normalize(vectors_BD - self.mean_D, dim=1)

    def check_target(self, target: VectorSpace) -> None:
        """Raises ModelError when the vectors of a run are not those that the adapter was trained on; names both."""
        check_space(self.source, self.reads, target)

    def attach(self, unet: Any, scale: float = 1.0) -> None:
        """Put the adapter's layers into a diffusers U-Net, in place.

        Raises:
            ModelError: another number of cross-attention layers, or another width.
        """
        width = int(unet.config.cross_attention_dim)
        rows = self.tensors["image_proj.proj.weight"].shape[0]
        layers = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
        layers_here = sum(name.endswith("to_k_ip.weight") for name in self.tensors)
        for what, first, second in (
            ("context width", rows // TOKENS, width), ("number of cross-attention layers", layers_here, len(layers))
        ):  # fmt: skip
            if first != second:
                raise ModelError(
                    f"adapter {self.source} and this U-Net differ in {what}: {first} and {second}",
                    f"use an adapter that was trained for this generator: {_fitting(None, self.reads)}",
                )
        attach_tensors(unet, self.tensors, scale)
        unet.requires_grad_(False)


def attach_tensors(unet: Any, tensors: Mapping[str, Tensor], scale: float = 1.0) -> None:
    """Put the layers of an IP-Adapter that fits into a U-Net, in place, frozen."""
    from diffusers.utils import logging

    parts = {
        part: {n.removeprefix(f"{part}."): t for n, t in tensors.items() if n.startswith(f"{part}.")}
        for part in ("image_proj", "ip_adapter")
    }
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # diffusers warns about precisions that nobody asked for
    try:
        unet._load_ip_adapter_weights([parts])
    finally:
        logging.set_verbosity(level)
    for processor in _adapted_processors(unet).values():
        processor.scale = [scale]
    freeze_adapter(unet)


def has_adapter(unet: Any) -> bool:
    """Whether an IP-Adapter is in a U-Net."""
    return getattr(unet.config, "encoder_hid_dim_type", None) == "ip_image_proj"


def freeze_adapter(unet: Any) -> None:
    """The adapter stays as it is, whatever else of the U-Net trains."""
    for processor in _adapted_processors(unet).values():
        processor.requires_grad_(False)
    if has_adapter(unet):
        unet.encoder_hid_proj.requires_grad_(False)


def _adapted_processors(unet: Any) -> dict[str, Any]:
    return {name: processor for name, processor in unet.attn_processors.items() if hasattr(processor, "to_k_ip")}


@contextlib.contextmanager
def without_adapter(unet: Any) -> Iterator[None]:
    """The U-Net as it was before an adapter was attached, to be saved: diffusers would write the adapter's tensors into its file and
    drop them when it reads that file again."""
    if not has_adapter(unet):
        yield
        return
    from diffusers.models.attention_processor import AttnProcessor2_0

    processors, projection = unet.attn_processors, unet.encoder_hid_proj
    adapted = _adapted_processors(unet)
    unet.set_attn_processor({name: AttnProcessor2_0() if name in adapted else module for name, module in processors.items()})
    unet.encoder_hid_proj = None
    unet.register_to_config(encoder_hid_dim_type=None)
    try:
        yield
    finally:
        unet.set_attn_processor(dict(processors))
        unet.encoder_hid_proj = projection
        unet.register_to_config(encoder_hid_dim_type="ip_image_proj")


class AdapterTensors(nn.Module):
    """An adapter inside another model's weights: saved with it, never trained, attached to the U-Net beside it."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.names = tuple(shapes)
        for name, shape in shapes.items():
            self.register_buffer(_flat(name), torch.zeros(shape))

    @property
    def width(self) -> int:
        """Numbers of the vector that it reads."""
        return int(self.tensors["image_proj.proj.weight"].shape[1])

    @property
    def tensors(self) -> dict[str, Tensor]:
        """`image_proj.*` and `ip_adapter.*`."""
        return {name: self.get_buffer(_flat(name)) for name in self.names}

    @torch.no_grad()
    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the values of an adapter over."""
        for name, value in self.tensors.items():
            value.copy_(tensors[name])


def _flat(name: str) -> str:
    return name.replace(".", "__")  # a buffer's name has no dots


def check_space(what: str, reads: VectorSpace, target: VectorSpace) -> None:
    """Raises ModelError, naming both image encoders and both widths, when vectors of `target` are not what `what` reads."""
    fits = f"adapters for {target.name}: {_fitting(target, None)}"
    if reads.width != target.width or not _same_encoder(reads, target):
        raise ModelError(
            f"{what} reads vectors of {reads.name} ({reads.width} numbers), the run gives vectors of {target.name} "
            f"({target.width} numbers)",
            f"train with --target {_option(reads)}, or use one of the {fits}",
        )
    if reads.fingerprint and target.fingerprint and reads.fingerprint != target.fingerprint:
        raise ModelError(
            f"{what} was trained on {reads.name} with weights {reads.fingerprint[:12]}, the run on {target.name} with weights "
            f"{target.fingerprint[:12]}",
            f"train the run again with --target {_option(reads)}",
        )


def _option(space: VectorSpace) -> str:
    return space.name if space.name == "embedded" or ":" not in space.encoder else f"clip:{space.encoder}"


def _same_encoder(reads: VectorSpace, target: VectorSpace) -> bool:
    """Equal names; or a local weight file given for the same architecture, whose tag its name does not say."""
    if reads.encoder == target.encoder:
        return True
    (architecture, _), (other, given) = reads.encoder.split(":", 1) if ":" in reads.encoder else (reads.encoder, ""), (
        target.encoder.split(":", 1) if ":" in target.encoder else (target.encoder, "")
    )  # fmt: skip
    # a path: its owner says which weights they are
    return architecture == other and ("/" in given or "\\" in given)


def _fitting(target: VectorSpace | None, reads: VectorSpace | None) -> str:
    encoder = (target or reads or VectorSpace("", 0)).encoder.split(":", 1)[0]
    names = [f"{k.name} ({k.megabytes} MB, {k.licence})" for k in KNOWN if k.image_encoder.split(":", 1)[0] == encoder]
    return "; ".join(names) or "none is known here"


def load_adapter(source: str | Path) -> ImageAdapter:
    """Read an adapter without opening a network connection.

    Args:
        source: "embedded"; a folder of ours (adapter.json and ip_adapter.safetensors); or one file in the published layout
            (.safetensors, or .bin, which is read without executing it), known by its name or by an adapter.json beside it.

    Raises:
        ModelError: nothing there, or an adapter that does not read one vector.
        CheckpointError: a damaged file.
    """
    from dreamdiff import embedded

    path = embedded.paths().adapter if str(source) == "embedded" else Path(source).expanduser()
    file = path / TENSORS if path.is_dir() else path
    if not file.is_file():
        raise ModelError(
            f"{source}: no adapter there ({file.name} is missing)",
            "give a folder with adapter.json and ip_adapter.safetensors, or the file of a published IP-Adapter",
        )
    details = _details(file.parent / DETAILS)
    tensors = _tensors(file)
    if "image_proj.proj.weight" not in tensors or not any(n.endswith("to_k_ip.weight") for n in tensors):
        raise ModelError(
            f"{source}: not an adapter that reads one vector (it has no image_proj.proj.weight; plus, full and face adapters "
            "read patches or faces)",
            "use a plain IP-Adapter, for instance ip-adapter_sd15.safetensors",
        )
    width = int(tensors["image_proj.proj.weight"].shape[1])
    name, fingerprint, licence = _image_encoder(file, details)
    words = None
    if "words.keys" in tensors:
        words = Words(tensors.pop("words.keys"), tensors.pop("words.states"), float(details.get("sharpness", 16.0)))
    return ImageAdapter(
        str(source), VectorSpace(name, width, fingerprint), {n: t for n, t in tensors.items() if n.startswith(("image_proj", "ip_"))},
        licence, tensors.get("vector.mean"), words, tensors.get("prior.bank"), {file.name: sha256_file(file)},
    )  # fmt: skip


def _image_encoder(file: Path, details: Mapping[str, Any]) -> tuple[str, str | None, str]:
    if "image_encoder" in details:
        return str(details["image_encoder"]), details.get("image_encoder_fingerprint"), str(details.get("licence", "unknown"))
    known = [entry for entry in KNOWN if entry.name.rsplit("/", 1)[-1] == file.stem]
    if not known:
        raise ModelError(
            f"{file}: nothing says which image encoder this adapter was trained on",
            f'write {DETAILS} beside it, for instance {{"image_encoder": "{VIT_H}"}}',
        )
    return known[0].image_encoder, None, known[0].licence


def _details(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        return {}
    content = read_object(file)
    if content is None:
        raise CheckpointError(f"{file}: not JSON with the adapter's facts", "copy the adapter again")
    return content


def _tensors(file: Path) -> dict[str, Tensor]:
    """Flat names, float32, of either layout: flat safetensors, or a pickle of two nested dictionaries."""
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return {name: value.float() for name, value in load_file(file).items()}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{file}: not a readable safetensors file ({error})", "copy or download it again, and check its SHA-256"
            ) from None
    from dreamdiff.untrusted.checkpoints import load

    content = load(file)
    out: dict[str, Tensor] = {}
    for part, inner in content.items() if isinstance(content, Mapping) else ():
        for name, value in inner.items() if isinstance(inner, Mapping) else ():
            if isinstance(value, Tensor):
                out[f"{part}.{name}"] = value.float()
    return out
