"""The aligned encoder: EEG of a trial in, a vector in the space of an image encoder out. No U-Net takes part.

    trial (C, T) uV -> front end (cut, whitened per person) -> [x + D_p x, a linear map of channels per person]
        -> encoder of any kind (tokens) -> all tokens, flat -> one head per target -> mean_D + scale * z

A head predicts z, the target's vector minus the mean of the training images in units of their spread; `encode` gives the vector
back in the target's own space, as long as the image encoder makes it, because that is what a frozen generator reads.

A folder holds config.json (see `AlignedConfig`) and model.safetensors:

    front.whitener_PCC, [people.map_PCC], encoder.*, heads.K.* (with mean_D and scale), log_scale

Shapes: N trials, B batch, P people, C channels, T samples as stored, W samples that the encoder reads, L tokens, D target width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dreamdiff.alignment.config import People
from dreamdiff.encoders.fronted import FrontedConfig, FrontedEncoder
from dreamdiff.encoders.frontend import NEW, FrontEnd, FrontEndConfig
from dreamdiff.encoders.kinds import build_encoder
from dreamdiff.encoders.weights import load_module, save_folder
from dreamdiff.matmul import Linear
from dreamdiff.run_folder import ALIGNED, read_config, weights_folder
from dreamdiff.untrusted.hub import model_folder
from eegprep import settings
from eegprep.errors import ModelError

Names = str | Sequence[str] | None


class TargetSpace(settings.Settings):
    """An image encoder's space: its name as it was asked for, what identifies its weights and preprocessing, and its width."""

    name: str
    fingerprint: str
    width: int = Field(ge=1)


class AlignedConfig(settings.Settings):
    """All that is needed to build the model again.

    encoder: section of `encoders.kinds.build_encoder`. people: names of those whose whitening is known.
    maps: `per-person` adds a linear map of channels for each of them, which is the identity for somebody new.
    dropout: before and inside a head. training: what it was trained on and how, for people and reports to read.
    """

    front: FrontEndConfig
    encoder: dict[str, Any]
    people: tuple[str, ...] = ()
    maps: People = "per-person"
    targets: tuple[TargetSpace, ...] = Field(min_length=1)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    training: dict[str, object] = Field(default_factory=dict)


class VectorEncoder(Protocol):
    """Anything that turns trials into vectors can be aligned (`align(encoder=...)`): it stays frozen, and a head learns."""

    def encode(self, eeg_BCT: Tensor) -> Tensor | np.ndarray: ...


class PersonMaps(nn.Module):
    """x + D_p x: a linear map of channels for each person, nothing for somebody new. Decay pulls it to the identity."""

    def __init__(self, people: int, channels: int) -> None:
        super().__init__()
        # zero: everybody begins as somebody new, and weight decay leads back there
        self.map_PCC = nn.Parameter(torch.zeros(people, channels, channels))

    def forward(self, x_BCW: Tensor, person_B: Tensor) -> Tensor:
        """Each trial through its person's map."""
        if len(self.map_PCC) == 0:
            return x_BCW
        map_BCC = self.map_PCC[person_B.clamp(min=0)].to(x_BCW.dtype)  # no look at who is there: that would halt a GPU
        known_B11 = (person_B != NEW)[:, None, None]
        return x_BCW + torch.where(known_B11, map_BCC @ x_BCW, 0)

    def add(self) -> None:
        """Room for one more person, who starts at the mean of the others' maps."""
        kept = self.map_PCC.detach()
        own = kept.mean(0, keepdim=True) if len(kept) else kept.new_zeros(1, *kept.shape[1:])
        self.map_PCC = nn.Parameter(torch.cat([kept, own]))


class Head(nn.Module):
    """All tokens to one vector: a linear map, a residual layer, a unit direction, and one length for all trials.

    A length for each trial was tried: with two labels a category it is what the model overfits first (15 % of 40 categories
    instead of 50).
    """

    mean_D: Tensor
    scale: Tensor

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.first = Linear(inputs, width)
        self.second = Linear(width, width)
        self.log_length = nn.Parameter(torch.zeros(()))
        self.register_buffer("mean_D", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """(B, L, D) -> z (B, width)."""
        first_BD = self.first(self.drop(tokens_BLD.flatten(1)))
        both_BD = first_BD + self.drop(self.second(F.gelu(first_BD)))
        # float32 also under mixed precision: a norm over a thousand squares needs it
        return F.normalize(both_BD.float(), dim=-1) * self.log_length.exp()

    def standardise(self, vectors_BD: Tensor) -> Tensor:
        """Vectors of the target's space to what `forward` predicts."""
        return (vectors_BD - self.mean_D) / self.scale

    def restore(self, z_BD: Tensor) -> Tensor:
        """The inverse of `standardise`."""
        return self.mean_D + self.scale * z_BD

    @torch.no_grad()
    def measure(self, vectors_MD: Tensor) -> None:
        """Mean of the training images' vectors, and the root mean square of what is left: z then has a mean square norm of 1."""
        mean_D = vectors_MD.mean(0)
        self.mean_D.copy_(mean_D)
        self.scale.copy_((vectors_MD - mean_D).square().sum(1).mean().sqrt().clamp_min(1e-8))


class AlignedEncoder(nn.Module):
    """EEG to image vectors; see the module. Made by `dreamdiff train align`.

    Example:
        model = AlignedEncoder.from_pretrained("ALIGN_RUN")
        model.encode(eeg_BCT)                              # somebody new
        model.encode(eeg_BCT, person="sub-01")             # a person of its training pairs
    """

    def __init__(self, config: AlignedConfig, encoder: nn.Module | None = None) -> None:
        """Build with fresh weights.

        Args:
            config: shapes of all parts.
            encoder: for `external` encoders (see `ExternalTokens`), which no configuration can build.
        """
        super().__init__()
        self.config = config
        self.front = FrontEnd(config.front, config.people)
        self.people = PersonMaps(len(config.people), config.front.channels) if config.maps == "per-person" else None
        self.encoder = encoder if encoder is not None else build_encoder(config.encoder)
        inputs = int(self.encoder.tokens) * int(self.encoder.width)  # type: ignore[arg-type]
        self.log_scale = nn.Parameter(torch.zeros(()))  # of the contrastive loss; only training reads it
        self.frozen = False  # whether the encoder keeps its state (running means included) in training
        self.heads = nn.ModuleList(Head(inputs, target.width, config.dropout) for target in config.targets)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, revision: str | None = None, local_files_only: bool = False
    ) -> AlignedEncoder:
        """Read a run of `dreamdiff train align` (finished or not), or a folder of `save_pretrained`; in evaluation mode.

        Args:
            folder: or a repository of the Hub: `owner/name`, `hf:owner/name@revision`.
            revision: of a repository: branch, tag or commit. local_files_only: never ask the Hub.

        Raises:
            ModelError: the folder holds another kind of model. CheckpointError: a damaged or missing file.
        """
        source = weights_folder(model_folder(folder, revision=revision, offline=local_files_only))
        content = read_config(source)
        if content.get("architecture") != ALIGNED:
            raise ModelError(
                f"{source}: holds a {content.get('architecture')!r}, not an {ALIGNED}",
                "give the --out folder of `dreamdiff train align`",
            )
        fields = {key: value for key, value in content.items() if key not in ("architecture", "version")}
        config = settings.validated(AlignedConfig, fields)
        return load_module(lambda: cls(config), source).eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors."""
        save_folder(Path(folder), self.config_content(), self.state_dict())

    def config_content(self) -> Mapping[str, Any]:
        """What config.json holds."""
        return {"architecture": ALIGNED, "version": 1, **self.config.model_dump(mode="json")}

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the targets, in the order of the heads."""
        return tuple(target.name for target in self.config.targets)

    def forward(self, x_BCW: Tensor, person_B: Tensor) -> tuple[Tensor, ...]:
        """What has passed the front end to z of every target, (B, D_k) each."""
        tokens_BLD = self.tokens(x_BCW, person_B)
        return tuple(head(tokens_BLD) for head in self.heads)

    def train(self, mode: bool = True) -> AlignedEncoder:
        """Training mode for all that trains."""
        # a frozen encoder stays in evaluation mode: running means of a batch norm would move even without gradients
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def tokens(self, x_BCW: Tensor, person_B: Tensor) -> Tensor:
        """(B, L, D) of the encoder alone."""
        return self.encoder(x_BCW if self.people is None else self.people(x_BCW, person_B))

    @torch.no_grad()
    def encode(
        self, eeg_BCT: Tensor | np.ndarray, person: Names = None, *, target: str | int = 0, batch_size: int = 256
    ) -> Tensor:
        """Vectors of trials in a target's own space, (B, D) float32 on the CPU; the same for a trial in any batch.

        Args:
            eeg_BCT: trials as in the training pairs: uV, rate, channels.
            person: a name of those pairs for all trials, or one for each; None for somebody new.
            target: name or number of the target; the first one by default.
            batch_size: trials at a time.

        Raises:
            ModelError: another shape, a person or a target that this model does not know.
        """
        head = self.heads[self.target_number(target)]
        trials = torch.as_tensor(np.asarray(eeg_BCT) if isinstance(eeg_BCT, np.ndarray) else eeg_BCT)
        person_B = self.front.numbers(person, len(trials))
        training, device = self.training, self.front.whitener_PCC.device
        self.eval()
        parts = [torch.empty(0, self.config.targets[self.target_number(target)].width)]
        try:
            for start in range(0, len(trials), batch_size):
                rows = slice(start, start + batch_size)
                numbers = person_B[rows].to(device)
                x_BCW = self.front(trials[rows].to(device, torch.float32), numbers)
                parts.append(head.restore(head(self.tokens(x_BCW, numbers))).float().cpu())  # type: ignore[operator]
        finally:
            self.train(training)
        return torch.cat(parts)

    def target_number(self, target: str | int) -> int:
        """Place of a target among the heads.

        Raises:
            ModelError: this model has no such target.
        """
        names = self.target_names
        if isinstance(target, int) and 0 <= target < len(names):
            return target
        if target in names:
            return names.index(str(target))
        raise ModelError(
            f"this model was not aligned to {target!r}{settings.suggest(str(target), names)}", f"use one of: {', '.join(names)}"
        )

    def add_person(self, name: str, covariance_CC: Tensor) -> None:
        """Take a new person in, whitened by the covariance of their own trials (`encoders.frontend.trial_covariance`)."""
        known = name in self.front.people
        self.front.add(name, covariance_CC)
        if not known:
            if self.people is not None:
                self.people.add()
            self.config = self.config.model_copy(update={"people": self.front.people})


class ExternalTokens(nn.Module):
    """A `VectorEncoder` as an encoder of one token. It reads what the front end gives."""

    def __init__(self, external: VectorEncoder, channels: int, window: int) -> None:
        super().__init__()
        self.external = external
        self.tokens = 1
        self.width = int(self(torch.zeros(1, channels, window)).shape[2])

    @torch.no_grad()
    def forward(self, eeg_BCT: Tensor, scale_B: Tensor | None = None) -> Tensor:
        """(B, C, W) -> (B, 1, D)."""
        return torch.as_tensor(self.external.encode(eeg_BCT)).to(eeg_BCT).flatten(1)[:, None]


def fronted_encoder(folder: str | Path) -> FrontedEncoder:
    """The encoder of an aligned run with its front end, to start fine-tuning from (see `encoders.fronted`)."""
    model = AlignedEncoder.from_pretrained(folder)
    front = model.config.front
    encoder = FrontedEncoder(
        FrontedConfig(channels=front.channels, window=front.samples, front=front, encoder=model.config.encoder)
    )
    with torch.no_grad():
        one = len(model.front.people) == 1
        whitener_CC = model.front.whitener_PCC[0 if one else -1]
        if model.people is not None and len(model.people.map_PCC):
            # (1 + D) R^(-1/2) is one matrix: the map goes into the whitening
            whitener_CC = whitener_CC + model.people.map_PCC.mean(0) @ whitener_CC
        encoder.front.whitener_PCC.copy_(whitener_CC[None])
        encoder.inner.load_state_dict(model.encoder.state_dict())
    return encoder.eval()
