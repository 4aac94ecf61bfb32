"""The frozen CLIP image tower: load it from local files, check its preprocessing, turn images into vectors.

Shapes: N images, H W image pixels, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dreamdiff.devices import fitting_batch, mixed, place_of, send
from dreamdiff.untrusted.states import read_tensors
from dreamdiff.untrusted.tensors import sha256_once
from eegprep.errors import CheckpointError, ModelError
from eegprep.provenance import sha256_file, sha256_json
from eegprep.sealed import read_object
from eegprep.settings import suggest

EMBEDDED = Path(__file__).parents[1] / "embedded" / "clip"

BYTES_OF_IMAGE = 1e8  # activations of one image in ViT-bigG-14, with room

CONFIG_FILE = "open_clip_config.json"

_PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode")


@dataclass(frozen=True)
class ClipTarget:
    """E_I of the paper (section 3.3), frozen, with the preprocessing that its weights were trained with.

    preprocess: size, mean, std, interpolation, resize mode. checked: whether a file beside the weights states that preprocessing;
    if not, open_clip's values for the architecture are assumed. files: weight file -> SHA-256. assumed: what else nothing states.
    """

    model: Any
    name: str
    preprocess: dict[str, Any]
    checked: bool
    files: dict[str, str] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    precision: str = "fp32"

    def to(self, device: torch.device, precision: str = "fp32") -> ClipTarget:
        """The same on a device; images are read in that precision, texts, which are few, in the weights' own."""
        return replace(self, model=self.model.to(device), precision=precision)

    @property
    def width(self) -> int:
        """D, the width of an image vector."""
        return int(getattr(self.model.visual, "output_dim", 0) or self.encode_images(np.zeros((1, 32, 32, 3), np.uint8)).shape[1])

    @property
    def remarks(self) -> list[str]:
        """What a person should know: weights by SHA-256, and where the preprocessing comes from."""
        lines = [f"CLIP {name}: SHA-256 {digest}" for name, digest in self.files.items()]
        values = ", ".join(f"{key} {value}" for key, value in self.preprocess.items())
        return [
            *lines,
            f"CLIP preprocessing ({'stated with the weights' if self.checked else 'assumed, nothing states it'}): {values}",
            *self.assumed,
        ]

    @property
    def fingerprint(self) -> str:
        """One digest of weights and preprocessing; two that are equal give equal vectors."""
        content = {
            "files": sorted(self.files.values()),
            "preprocess": self.preprocess,
            "quick_gelu": _uses_quick_gelu(self.model),
            **({} if self.precision == "fp32" else {"precision": self.precision}),
        }
        return sha256_json(content, blanks=True)

    @torch.no_grad()
    def encode_images(
        self, images_NHWC: np.ndarray | Sequence[np.ndarray], batch: int | None = None, *, normalise: bool = True
    ) -> Tensor:
        """Unit vectors (N, D) float32 of uint8 RGB images, through the tower's own preprocessing.

        Args:
            batch: images at a time; 32 on a CPU, on a GPU as many as its memory suggests.
            normalise: False leaves them as long as the tower makes them, which is what IP-Adapters read.
        """
        from open_clip.transform import PreprocessCfg, image_transform_v2

        transform = image_transform_v2(PreprocessCfg(**self.preprocess), is_train=False)
        device, dtype = place_of(self.model)
        batch = batch or fitting_batch(device, BYTES_OF_IMAGE, least=32, most=512)
        parts = []
        for start in range(0, len(images_NHWC), batch):
            pixels = torch.stack([transform(Image.fromarray(image)) for image in images_NHWC[start : start + batch]])
            with mixed(self.precision, device):
                vectors = self.model.encode_image(send(pixels, device, dtype))
            parts.append((torch.nn.functional.normalize(vectors.float(), dim=-1) if normalise else vectors.float()).cpu())
        return torch.cat(parts) if parts else torch.empty(0, self.width)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (N, D) float32 of short texts, from the text tower."""
        from open_clip.tokenizer import SimpleTokenizer

        tokens = SimpleTokenizer(context_length=int(self.model.context_length))(list(texts))
        vectors = self.model.encode_text(tokens.to(next(self.model.parameters()).device))
        return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu()

    @torch.no_grad()
    def text_states(self, texts: Sequence[str], padding: Literal["end", "zero"] = "end") -> Tensor:
        """Last hidden states of the text tower, (N, 77, width) float32: the contexts that Stable Diffusion 1.x was trained on.

        padding: what fills the places after the text: the end token, as in Stable Diffusion's tokenizer, or zeros (the embedded model).
        """
        from open_clip.tokenizer import SimpleTokenizer

        tower = getattr(self.model, "text", self.model)
        tokens = SimpleTokenizer(context_length=int(self.model.context_length))(list(texts))
        if padding == "end":
            # the end token has the largest number of the vocabulary; open_clip fills with 0 behind it
            after = torch.arange(tokens.shape[1]) > tokens.argmax(dim=1, keepdim=True)
            tokens = torch.where(after, tokens.max(), tokens)
        tokens = tokens.to(place_of(self.model)[0])
        state_NLD = tower.token_embedding(tokens) + tower.positional_embedding
        return tower.ln_final(tower.transformer(state_NLD, attn_mask=tower.attn_mask)).float()


def load_clip(source: str, *, offline: bool = False) -> ClipTarget:
    """Load a CLIP model, frozen; a local source opens no network connection.

    Args:
        source: "embedded"; a folder with open_clip_config.json and weights; `ARCHITECTURE:FILE`, for instance
            `ViT-L-14-quickgelu:/models/clip.safetensors`; or `ARCHITECTURE:TAG` (tag "openai" if none is given), which downloads.
        offline: refuse to download.

    Raises:
        ModelError: unknown name, or weights and preprocessing that do not fit together.
        CheckpointError: a damaged or unsafe file.
    """
    if source == "embedded" and not EMBEDDED.is_dir():
        raise ModelError("the embedded CLIP is not in this installation", "install the package again, or name another --clip")
    folder = EMBEDDED if source == "embedded" else Path(source).expanduser()
    if folder.is_dir():
        return _from_folder(folder, source)
    architecture, _, rest = source.partition(":")
    file = Path(rest).expanduser()
    if rest and file.is_file():
        return _from_file(architecture, file, source)
    if rest and ("/" in rest or "\\" in rest or file.suffix):
        raise ModelError(
            f"--clip {source}: there is no file {rest}",
            "give ARCHITECTURE:FILE, for instance ViT-L-14-quickgelu:clip.safetensors",
        )
    return _from_tag(architecture, rest or "openai", source, offline)


def _from_folder(folder: Path, source: str) -> ClipTarget:
    if not (folder / CONFIG_FILE).is_file():
        if _is_transformers(folder):
            raise ModelError(
                f"{folder}: a CLIP model in the layout of transformers (config.json, pytorch_model.bin), not of open_clip",
                "give the open_clip weights of the same model, for instance ViT-L-14-quickgelu:openai, or a folder with "
                f"{CONFIG_FILE}; transformers' names of tensors are not read here",
            )
        raise ModelError(f"{folder}: no {CONFIG_FILE} in it", "give an open_clip folder, or ARCHITECTURE:FILE")
    config, preprocessing = _stated(folder / CONFIG_FILE)
    weights = [
        folder / name for name in ("open_clip_model.safetensors", "open_clip_pytorch_model.bin") if (folder / name).is_file()
    ]
    if not weights:
        raise ModelError(f"{folder}: no open_clip_model.safetensors in it", "copy or download that folder again")
    return _build(config, weights[0], preprocessing, source)


def _stated(file: Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Model and preprocessing of an open_clip configuration."""
    content = read_object(file) or {}
    model, preprocessing = content.get("model_cfg"), content.get("preprocess_cfg", {})
    if not isinstance(model, dict) or not isinstance(preprocessing, dict):
        raise ModelError(f"{file}: not an open_clip configuration", "copy or download that folder again")
    return model, {key: preprocessing[key] for key in _PREPROCESS_KEYS if key in preprocessing}


def _is_transformers(folder: Path) -> bool:
    """Whether a folder holds a CLIP of the transformers library."""
    content = read_object(folder / "config.json")
    return content is not None and ("transformers_version" in content or "clip" in str(content.get("model_type", "")))


def _from_file(architecture: str, file: Path, source: str) -> ClipTarget:
    config = _architecture(architecture)
    config_file = file.parent / CONFIG_FILE
    stated: dict[str, object] = {}
    assumed: tuple[str, ...] = ()
    if config_file.is_file():
        model, stated = _stated(config_file)
        asked, trained_with = bool(config.get("quick_gelu")), bool(model.get("quick_gelu"))
        if asked != trained_with:
            raise ModelError(
                f"{source}: the weights were trained with quick_gelu = {trained_with} ({config_file}), {architecture} has {asked}",
                f"use the architecture {architecture + '-quickgelu' if trained_with else architecture.removesuffix('-quickgelu')}",
            )
    else:
        assumed = _activation(architecture, file, source)
    return replace(_build(config, file, stated, source), assumed=assumed)


def _activation(architecture: str, file: Path, source: str) -> tuple[str, ...]:
    """What to say of the activation where only the name of the architecture tells it: the same tensors fit both.

    Raises:
        ModelError: open_clip knows this very file, and it was trained with the other one.
    """
    from open_clip.factory import list_models
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    plain = architecture.removesuffix("-quickgelu")
    names = [name for name in (plain, f"{plain}-quickgelu") if name in list_models()]
    if len(names) < 2:
        return ()
    digest, asked = sha256_once(file), architecture != plain
    for name in names:
        for tag in list_pretrained_tags_by_model(name):
            known = get_pretrained_cfg(name, tag)
            if digest in str(known.get("url", "")) and bool(known.get("quick_gelu")) != asked:
                raise ModelError(
                    f"{source}: this file is open_clip's {tag!r} of {plain}, trained with quick_gelu = {not asked}",
                    f"use the architecture {plain if asked else names[1]}",
                )
    other = f"{plain} would mean GELU" if asked else f"weights of OpenAI need {names[1]}"
    return (f"CLIP activation ({'QuickGELU' if asked else 'GELU'}) is assumed from the name {architecture}; {other}",)


def _from_tag(architecture: str, tag: str, source: str, offline: bool) -> ClipTarget:
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model

    config = _architecture(architecture)
    known = get_pretrained_cfg(architecture, tag)
    if not known:
        tags = list_pretrained_tags_by_model(architecture)
        raise ModelError(
            f"--clip {source}: open_clip has no weights {tag!r} for {architecture}{suggest(tag, tags)}",
            f"use {architecture}:FILE with a local file, or one of: {', '.join(tags) or 'none'}",
        )
    if offline:
        raise ModelError(
            f"--clip {source} names weights on the network, and this run is offline", f"use {architecture}:FILE with a local file"
        )
    try:
        file = Path(download_pretrained(known))
    except Exception as error:  # HTTP libraries, the hub client and the operating system each raise their own kind
        raise ModelError(
            f"--clip {source}: the weights could not be downloaded ({str(error).strip()[:200]})",
            f"use {architecture}:FILE with a local file",
        ) from None
    # open_clip's table of weights knows it, its configuration of the architecture does not always
    config = {**config, "quick_gelu": bool(known.get("quick_gelu", False))}
    return _build(config, file, {key: known[key] for key in _PREPROCESS_KEYS if key in known}, source)


def _architecture(name: str) -> Mapping[str, Any]:
    from open_clip.factory import get_model_config, list_models

    config = get_model_config(name)
    if config is None:
        raise ModelError(
            f"open_clip knows no architecture {name!r}{suggest(name, list_models())}",
            "see open_clip.list_models(), or give an open_clip folder",
        )
    return dict(config)


def _build(config: Mapping[str, Any], file: Path, stated: Mapping[str, Any], source: str) -> ClipTarget:
    from open_clip.convert import convert_state_dict
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.transform import PreprocessCfg

    settings = dict(config)
    kind = CustomTextCLIP if settings.pop("custom_text", False) else CLIP
    tensors = read_tensors(file, ("logit_scale",))
    _check_image_size(config, tensors, source)
    try:
        # a trial without memory: a configuration that fits no model is an error before gigabytes are reserved
        with torch.device("meta"):
            kind(**settings)
    except TypeError as error:
        raise ModelError(
            f"{source}: not an open_clip configuration ({error})", "compare it with open_clip.get_model_config(...)"
        ) from None
    model = kind(**settings)
    try:
        model.load_state_dict(convert_state_dict(model, tensors), strict=True)
    except (RuntimeError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise CheckpointError(
            f"{file}: its tensors do not fit this architecture ({(lines[1] if len(lines) > 1 else lines[0])[:200]})",
            "name the architecture that the weights belong to",
        ) from None
    defaults = PreprocessCfg()
    preprocess = {
        "size": config["vision_cfg"]["image_size"],
        **{key: getattr(defaults, key) for key in _PREPROCESS_KEYS},
        **stated,
    }
    preprocess = {key: list(value) if isinstance(value, tuple) else value for key, value in preprocess.items()}
    checked = all(key in stated for key in ("mean", "std"))
    return ClipTarget(model.eval().requires_grad_(False), source, preprocess, checked, {file.name: sha256_file(file)})


def _check_image_size(config: Mapping[str, Any], tensors: dict[str, Tensor], source: str) -> None:
    """A position table of another size would be stretched silently; the vectors would then not be the weights' own."""
    table, vision = tensors.get("visual.positional_embedding"), config.get("vision_cfg", {})
    size, patch = vision.get("image_size"), vision.get("patch_size")
    if table is None or not isinstance(size, int) or not isinstance(patch, int):
        return
    expected, rows = (size // patch) ** 2 + 1, len(table)
    if expected != rows:
        side = round((rows - 1) ** 0.5) * patch
        raise ModelError(
            f"{source}: the weights were trained on images of {side} pixels, the configuration says {size}",
            f"use the configuration for {side} pixels; another size would change every vector",
        )


def _uses_quick_gelu(model: Any) -> bool:
    from open_clip.transformer import QuickGELU

    return any(isinstance(module, QuickGELU) for module in model.modules())
