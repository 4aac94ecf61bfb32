"""Starts the conditioner from a closed-form linear fit, and computes its losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dreamdiff.devices import place_of, send
from dreamdiff.diffusion.adapters import ImageAdapter, VectorSpace, Words, load_adapter
from dreamdiff.diffusion.clip import ClipTarget
from dreamdiff.embedded import fill_caption
from dreamdiff.finetuning.data import TrainingData
from dreamdiff.finetuning.trained import Trained
from dreamdiff.linear import grouped_ridge, whitener
from eegprep.errors import ModelError

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
        captions = [fill_caption(template, name) for name in classes]
        return cls(clip.encode_text(captions), clip.text_states(captions, padding), clip.text_states([""], padding)[0])


@torch.no_grad()
def linear_start(
    module: Trained, data: TrainingData, texts: Texts, adapter: ImageAdapter | None = None, limit: int = 4000
) -> list[str]:
    """Fit the linear path and the bridge in closed form on the training trials, and let tau and the CLIP head begin at zero.

    1. EEG -> CLIP: ridge regression of the image's vector on channels x time bins, after whitening over channels (the covariance is
       the training trials' own); the penalty is chosen by cross-validation among training images.
    2. CLIP -> context: an image adapter, which was trained on vectors before this U-Net and is attached to it: four tokens of its own
       attention, and text states that the vector chooses, where the adapter brings them. Without an adapter, attention over the captions
       of the class names. The key of a caption is the mean direction of the training images that CLIP finds nearest to it (its own
       direction, if there is none), its value are its text states. Labels of trials are not used, but the names of the classes are,
       and for drawings the nearest caption is nearly always that of the label.
    3. "No EEG" is the state of the empty text, which is what the U-Net knows as no condition.

    Ours: with some thousand trials and minutes of time, gradient descent alone rarely finds what a linear fit finds immediately.
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
    # the cost of the fit grows with the cube of the trials
    chosen = train if len(train) <= limit else np.random.default_rng(0).choice(train, limit, replace=False)
    parts = [
        linear.features(encoder.scale(send(torch.from_numpy(data.pairs.eeg(part)), place_of(encoder)[0])))
        for part in np.array_split(chosen, -(-len(chosen) // 256))
    ]
    features_NCW = torch.cat(parts).cpu().double().numpy()
    whitener_CC = whitener(features_NCW - features_NCW.mean(0), floor=1e-4)
    white_ND = np.einsum("dc,ncw->ndw", whitener_CC, features_NCW, optimize=True).reshape(len(features_NCW), -1)
    image_N = data.pairs.image[chosen]
    fitted = grouped_ridge(white_ND, data.clip_vectors.read(data.row[image_N]), image_N)
    # one map for signals that are not whitened: the whitener goes into the weights
    weights = np.einsum("dc,dwk->cwk", whitener_CC, fitted.weights_DE.reshape(*features_NCW.shape[1:], -1), optimize=True)
    linear.map.weight.copy_(torch.from_numpy(weights.reshape(white_ND.shape[1], -1).T))
    linear.map.bias.copy_(torch.from_numpy(fitted.offset_E))
    images = np.unique(data.pairs.image[train])
    image_MD = torch.from_numpy(data.clip_vectors.read(data.row[images]))
    bridge.clip_mean_D.copy_(image_MD.mean(dim=0))
    if adapter is None:
        bridge.keys_KD.copy_(caption_keys(image_MD, texts))
        bridge.states_KLD.copy_(texts.states_KLD)
    else:
        words = words_of(adapter, texts)
        bridge.keys_KD.copy_(words.keys_KD)
        bridge.states_KLD.copy_(words.states_KLW)
        assert conditioner.adapter is not None
        conditioner.adapter.fill(adapter.tensors)
    conditioner.null_LD.copy_(texts.empty_LD)
    # tau and the head begin at zero, so that the closed form is all there is at the first step
    for layer in (conditioner.dim_mapper, cast(Any, conditioner.clip_head).fc):
        layer.weight.zero_()
        layer.bias.zero_()
    share = f"leaves {fitted.left_over:.0%} of the variance of the images' CLIP vectors, each image's trials predicted from those of others"
    return [f"linear start: ridge regression on {len(chosen)} training trials {share}"]


def caption_keys(image_MD: Tensor, texts: Texts) -> Tensor:
    """(K, D) where the captions lie among the training images, seen from their mean."""
    vectors_KD = texts.vectors_KD.cpu()
    caption_M = (image_MD @ vectors_KD.T).argmax(dim=1)
    direction_MD = F.normalize(image_MD - image_MD.mean(dim=0), dim=-1)
    keys_KD = F.normalize(vectors_KD - vectors_KD.mean(dim=0), dim=-1)
    for caption in caption_M.unique():
        keys_KD[caption] = direction_MD[caption_M == caption].mean(dim=0)
    return keys_KD


def words_of(adapter: ImageAdapter, texts: Texts) -> Words:
    """The text states that an adapter was trained beside; the empty text for one that was trained alone."""
    if adapter.words is not None:
        return adapter.words
    width = adapter.tensors["image_proj.proj.weight"].shape[1]
    return Words(torch.zeros(1, width), texts.empty_LD[None], 1.0)


def adapter_for(source: str, sd: str, clip: ClipTarget) -> ImageAdapter | None:
    """The adapter that `start.adapter` names; None for captions.

    Raises:
        ModelError: it reads vectors of another CLIP, or vectors in their full length, which h(y) does not have.
    """
    if source == "captions" or (source == "own" and (sd != "embedded" or clip.name != "embedded")):
        return None
    adapter = load_adapter("embedded" if source == "own" else source)
    adapter.check_target(VectorSpace(clip.name, clip.width))
    if adapter.mean_D is None:
        raise ModelError(
            f"adapter {adapter.source} reads vectors as long as the image encoder makes them, h(y) has only their direction",
            "set start.adapter=captions, or use `dreamdiff train align` and `dreamdiff generate --adapter`, which keep the length",
        )
    return adapter
