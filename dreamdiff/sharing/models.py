"""What the repository of a model holds: its configuration and weights, what it read, and nothing that names this machine."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dreamdiff.alignment.model import AlignedConfig, AlignedEncoder
from dreamdiff.certificates.check import model_digest
from dreamdiff.diffusion.pipeline_folder import DETAILS, FOLDER, INDEX, pipeline_folder
from dreamdiff.lineage.seen import SEEN_FILE, Entry, read_seen
from dreamdiff.run_folder import ALIGNED, CONFIG_FILE, WEIGHTS_FILE, read_config, weights_folder
from dreamdiff.untrusted.kinds import check_weights_file
from eegprep import settings
from eegprep.errors import CheckpointError, ModelError
from eegprep.provenance import sha256_json
from eegprep.sealed import read_object
from eegprep.sharing.manifest import as_json, files_of

Kind = Literal["encoder", "aligned", "pipeline"]
LOADERS: dict[Kind, str] = {"encoder": "EEGEncoder", "aligned": "AlignedEncoder", "pipeline": "DreamDiffusionPipeline"}
# a path of this machine inside a text, such as "msm:/home/me/runs/msm": all but its last part goes
_PATH = re.compile(r"(?:(?<=^)|(?<=:))(?:~|[A-Za-z]:)?[\\/](?:[^\\/]+[\\/])*(?=[^\\/]+$)")


@dataclass(frozen=True)
class Model:
    """A model to publish. files: names in the repository. training: what the run says of itself. digest: of the weights as a report names them."""

    kind: Kind
    name: str
    files: Mapping[str, Path | bytes]
    config: Mapping[str, Any]
    training: Mapping[str, Any]
    seen: Sequence[Entry]
    run: Mapping[str, Any]
    digest: str
    targets: tuple[str, ...] = ()
    generator: object = None


@contextmanager
def prepared(folder: Path) -> Iterator[Model]:
    """A run, a checkpoint of one, or a folder of `save_pretrained`, ready to be published; what had to be written again lives as long as this.

    Raises:
        ModelError: none of these. CheckpointError: a file that is missing, damaged, or no safetensors.
    """
    with tempfile.TemporaryDirectory(prefix="dreamdiff-publish-") as scratch:
        yield _pipeline(folder) if _is_pipeline(folder) else _weights(folder, Path(scratch))


def _is_pipeline(folder: Path) -> bool:
    return any((place / INDEX).is_file() for place in (folder, folder / FOLDER))


def _pipeline(folder: Path) -> Model:
    source = pipeline_folder(folder)
    files: dict[str, Path | bytes] = dict(files_of(source))
    _require_safe(files)
    contents = {name: scrubbed(read_object(source / name) or {}) for name in (DETAILS, INDEX)}
    files |= {name: as_json(content) for name, content in contents.items()}
    details = contents[DETAILS].get("pipeline", {})
    training = dict(details.get("training", {}))
    seen = training.pop("seen", None) or [{"kind": "unknown", "where": folder.name}]
    files |= _card_pictures(folder)
    return Model(
        "pipeline", folder.resolve().name, files, {key: value for key, value in details.items() if key != "training"}, training, seen,
        scrubbed(read_object(folder / "run.json") or {}), model_digest(folder), generator=training.get("sd", "unknown"),
    )  # fmt: skip


def _weights(folder: Path, scratch: Path) -> Model:
    source = weights_folder(folder)
    content = read_config(source)
    run = scrubbed(read_object(folder / "run.json") or {})
    digest, pictures = model_digest(source), _card_pictures(folder)
    if content.get("architecture") == ALIGNED:
        plain = scrubbed(content)
        if sha256_json(plain) != sha256_json(content):
            # the weights carry the digest of their configuration: both are written again, every number as it was
            model = AlignedEncoder.from_pretrained(source)
            fields = {key: value for key, value in plain.items() if key not in ("architecture", "version")}
            model.config = settings.validated(AlignedConfig, fields)
            model.save_pretrained(scratch)
            source = scratch
        training = dict(plain["training"])
        seen = training.pop("seen", None) or [{"kind": "unknown", "where": folder.name}]
        files: dict[str, Path | bytes] = {name: source / name for name in (CONFIG_FILE, WEIGHTS_FILE)}
        _require_safe(files)
        targets = tuple(target["name"] for target in plain["targets"])
        config = {key: value for key, value in plain.items() if key != "training"}
        return Model("aligned", folder.resolve().name, {**files, **pictures}, config, training, seen, run, digest, targets)
    files = {name: source / name for name in (CONFIG_FILE, WEIGHTS_FILE)}
    _require_safe(files)
    seen = [scrubbed(entry) for entry in read_seen(source)]
    files[SEEN_FILE] = as_json({"seen": seen})
    return Model("encoder", folder.resolve().name, {**files, **pictures}, content, {}, seen, run, digest)


def _card_pictures(folder: Path) -> dict[str, Path | bytes]:
    return {name: folder / name for name in ("loss.png",) if (folder / name).is_file()}


def _require_safe(files: Mapping[str, Path | bytes]) -> None:
    """Only JSON and safetensors are published."""
    for name, path in files.items():
        if not isinstance(path, Path):
            continue
        if not path.is_file():
            raise CheckpointError(f"{path}: missing", "finish the run, or give the folder that holds the weights")
        if not name.endswith((".json", ".safetensors", ".png", ".txt")):
            raise ModelError(
                f"{path}: is neither JSON nor safetensors, and nothing else is published", "move it out of the folder"
            )
        if name.endswith(".safetensors"):
            check_weights_file(path)


def scrubbed(content: Any) -> Any:
    """JSON values without the folders of this machine: of a path, the last part stays."""
    if isinstance(content, Mapping):
        return {key: scrubbed(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [scrubbed(value) for value in content]
    return _PATH.sub("", content) if isinstance(content, str) and "://" not in content else content
