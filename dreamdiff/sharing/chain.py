"""The chain of licences behind a model: every recording and picture it read, the weights it started from, and the generator it is part of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dreamdiff.diffusion.adapters import KNOWN
from dreamdiff.lineage.seen import Entry
from dreamdiff.origin import generator_licence, generator_name
from eegprep.catalogue import moabb as catalogue
from eegprep.sharing.licences import Link, links_of

# image encoders by the beginning of their name -> licence of their weights, as their authors state it
ENCODER_LICENCES = (
    ("embedded", "MIT"), ("efficientnet-lite0", "Apache-2.0"), ("clip:ViT-", "MIT"), ("clip:RN", "MIT"),
)  # fmt: skip
# published EEG encoders whose authors forbid passing their weights on
HELD_WEIGHTS = {"reve": "REVE agreement: no redistribution"}


def chain_of(
    seen: Sequence[Entry], *, training: Mapping[str, Any], targets: Sequence[str] = (), generator: object = None,
    stated: Mapping[str, str] | None = None,
) -> list[Link]:  # fmt: skip
    """Licences of all that went into a model.

    Args:
        seen: what it read, see `lineage.seen`. training: what the run says of itself; `licence` is that of its pairs.
        targets: image encoders that it was aligned to. generator: the Stable Diffusion that its weights were tuned from.
        stated: name -> licence, said by whoever publishes, for what nobody else names.
    """
    stated, chain = stated or {}, list[Link]()
    for entry in seen:
        chain += _links_of_entry(entry, str(training.get("licence") or ""), stated)
    if not seen:
        chain += links_of("recordings", "training", str(training.get("licence") or ""), stated)
    start = str(training.get("encoder") or "")
    if start.startswith("braindecode:"):
        chain += links_of("weights", start, _held(start), stated)
    for target in targets:
        known = next((licence for name, licence in ENCODER_LICENCES if target.startswith(name)), "")
        known = known or next((adapter.licence for adapter in KNOWN if adapter.image_encoder == target), "")
        chain += links_of("image encoder", target, known, stated)
    if generator is not None:
        name = generator_name(generator)
        licence = str(training.get("generator_licence") or generator_licence(name))
        chain += links_of("generator", name, "" if licence == "not stated" else licence, stated)
    return list(dict.fromkeys(chain))


def _links_of_entry(entry: Entry, of_pairs: str, stated: Mapping[str, str]) -> list[Link]:
    where, kind = str(entry.get("where", "")).replace("\\", "/").rsplit("/", 1)[-1], entry.get("kind")
    if kind == "unknown":
        return links_of("weights", where, "", stated)
    if kind == "published":
        return links_of("weights", where, _held(where), stated)
    licences = entry.get("licences")
    if isinstance(licences, Mapping):
        return [link for name, text in licences.items() for link in links_of("recordings", name or where, str(text), stated)]
    names = sorted({str(row[0]) for row in entry.get("recordings", ())})  # runs of release 0.1 kept no licences
    if kind == "pairs":
        return [link for name in names for link in links_of("recordings", name or where, of_pairs, stated)]
    declared = {known.name: known.licence for known in catalogue.entries()}
    result: list[Link] = []
    for name in names:
        links = links_of("recordings", name or where, declared.get(name, ""), stated)
        result += [Link(link.part, link.name, link.licence, "catalogue" if name in declared else link.basis) for link in links]
    return result


def _held(name: str) -> str:
    return next((text for part, text in HELD_WEIGHTS.items() if part in name.lower()), "")
