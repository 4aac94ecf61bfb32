"""The verdict on a whole chain of licences: recordings, pictures, weights, adapter, generator, and what is published of them.

What is published is derived from all links of its chain. A link under "no derivatives", or one of which nothing is known, keeps it
from anybody else; one for non-commercial use keeps it from the public unless it is published under the same terms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from eegprep.catalogue.licences import UNKNOWN_LICENCE, is_open, spdx
from eegprep.errors import LicenceError, UsageError

Restriction = Literal["", "non-commercial", "no derivatives", "unknown"]

_NAMED = re.compile(r"^(images?|eeg|background|pictures?|recordings?)\s*:\s*", re.IGNORECASE)
_REMARK = re.compile(r"\s*\((images?|eeg|background|pictures?|recordings?)\)\s*$", re.IGNORECASE)
# what may be passed on as long as its own conditions go with it
_CONDITIONS = {
    "OpenRAIL": "the use restrictions of its licence go with it",
    "GPL": "derivatives under the same licence",
    "-SA-": "derivatives under the same licence",
}
# licence -> what the Hub calls it (https://huggingface.co/docs/hub/repositories-licenses)
_HUB = {
    "CC0-1.0": "cc0-1.0", "CC-BY-2.0": "cc-by-2.0", "CC-BY-3.0": "cc-by-3.0", "CC-BY-4.0": "cc-by-4.0", "CC-BY-SA-3.0": "cc-by-sa-3.0",
    "CC-BY-SA-4.0": "cc-by-sa-4.0", "CC-BY-NC-4.0": "cc-by-nc-4.0", "CC-BY-NC-SA-4.0": "cc-by-nc-sa-4.0", "ODC-By-1.0": "odc-by",
    "PDDL-1.0": "pddl", "MIT": "mit", "Apache-2.0": "apache-2.0", "CreativeML OpenRAIL-M": "creativeml-openrail-m",
    "CreativeML OpenRAIL++-M": "openrail++", "GPL-3.0-only": "gpl-3.0",
}  # fmt: skip


@dataclass(frozen=True)
class Link:
    """One part of what is published.

    part: "recordings", "images", "weights", "image encoder", "adapter", "generator", "output". licence: SPDX id, or as it is written.
    basis: who says so: "stored", "catalogue", or "stated" by whoever publishes.
    """

    part: str
    name: str
    licence: str
    basis: str = "stored"

    @property
    def restriction(self) -> Restriction:
        """What keeps it from being passed on."""
        return restriction(self.licence)

    @property
    def condition(self) -> str:
        """What goes with it when it is passed on."""
        return next((text for mark, text in _CONDITIONS.items() if mark in f"{self.licence}-"), "")


@dataclass(frozen=True)
class Verdict:
    """What may be done with the whole. licence: of what is published, as the Hub names it; "other" where none covers all links."""

    links: tuple[Link, ...]
    licence: str
    private: bool = False

    @property
    def sentence(self) -> str:
        """In words, for cards and messages."""
        held = [link for link in self.links if link.restriction]
        if not held:
            return "every part may be passed on" + (
                ", with the conditions named" if any(link.condition for link in self.links) else ""
            )
        named = "; ".join(f"{link.part} {link.name}: {link.licence} ({link.restriction})" for link in held)
        return f"not for the public: {named}" if self.private else f"for non-commercial use only: {named}"

    def to_json(self) -> list[dict[str, str]]:
        """Rows of a table."""
        return [
            {"part": link.part, "name": link.name, "licence": link.licence, "says": link.basis, "terms": link.restriction or link.condition}
            for link in self.links
        ]  # fmt: skip


def restriction(licence: str) -> Restriction:
    """What a licence forbids; "unknown" for anything that is not recognised."""
    name = spdx(licence)
    lower = name.lower()
    if is_open(name) or "openrail" in lower or name.startswith("GPL-"):
        return ""
    if "-ND" in name:
        return "no derivatives"
    if "-NC" in name or "noncommercial" in lower or "non-commercial" in lower or "stability ai community" in lower:
        return "non-commercial"
    return "unknown"


def links_of(part: str, name: str, text: str, stated: Mapping[str, str] | None = None) -> list[Link]:
    """Links of a text that may name several licences, such as "images: MIT, CC-BY-4.0; background: ODC-By-1.0".

    Args:
        part, name: of the whole, see `Link`. stated: name -> licence, declared by whoever publishes; counts only where the text says nothing.
    """
    links: list[Link] = []
    what = ""
    for piece in filter(None, (part.strip() for part in re.split(r"[,;]", text or ""))):
        match = _NAMED.match(piece) or _REMARK.search(piece)
        what = match[1].lower() if match else what
        licence = spdx(_REMARK.sub("", _NAMED.sub("", piece)))
        own = {"image": "images", "images": "images", "picture": "images", "pictures": "images"}.get(what, part)
        links.append(Link(own, name, licence))
    declared = (stated or {}).get(name)
    if declared is None or (links and all(link.restriction != "unknown" for link in links)):
        return links or [Link(part, name, UNKNOWN_LICENCE)]
    kept = [link for link in links if link.restriction != "unknown"]
    return [*kept, *(Link(link.part, name, spdx(declared), "stated") for link in links if link.restriction == "unknown")] or [
        Link(part, name, spdx(declared), "stated")
    ]


def judge(links: Iterable[Link], *, private: bool = False, non_commercial: bool = False) -> Verdict:
    """The verdict on a chain.

    Args:
        private: for a repository that only its owner can read: nothing is passed on, so nothing is forbidden.
        non_commercial: publish under terms of non-commercial use.

    Raises:
        LicenceError: what keeps it from being published, link by link.
    """
    chain = tuple(dict.fromkeys(links))
    if not private:
        passed = {"", "non-commercial"} if non_commercial else {""}
        held = [link for link in chain if link.restriction not in passed]
        if held:
            named = "; ".join(
                f"{link.part} {link.name or 'without a name'}: {link.licence} ({link.restriction})" for link in held
            )
            raise LicenceError(f"{len(held)} of {len(chain)} licences forbid publishing this: {named}", _fix(held))
    return Verdict(chain, _licence_of_all(chain), private)


def _fix(held: Sequence[Link]) -> str:
    kinds = {link.restriction for link in held}
    ways = []
    if "unknown" in kinds:
        name = next(link.name for link in held if link.restriction == "unknown")
        ways.append(f"where you hold the rights, or know the licence, state it: --licence '{name}=CC-BY-4.0'")
    if kinds == {"non-commercial"}:
        ways.append("add --non-commercial to publish for non-commercial use")
    return "; or ".join([*ways, "add --private for a repository that only you can read"])


def _licence_of_all(links: Sequence[Link]) -> str:
    """The strictest licence, where it covers all others."""
    names = {spdx(link.licence) for link in links}
    if any(restriction(name) in ("unknown", "no derivatives") for name in names):
        return "other"
    binding = {name for name in names if restriction(name) or any(mark in f"{name}-" for mark in _CONDITIONS)}
    if len(binding) > 1:
        return "other"
    if binding:
        return _HUB.get(binding.pop(), "other")
    # attribution covers what asks for less
    for name in ("ODC-By-1.0", "CC-BY-4.0", "CC-BY-3.0", "CC-BY-2.0", "Apache-2.0", "MIT", "PDDL-1.0", "CC0-1.0"):
        others = names - {name, "CC0-1.0", "PDDL-1.0", "MIT", "Apache-2.0", "CC-BY-2.0", "CC-BY-3.0"}
        if name in names and not (others - ({"ODC-By-1.0"} if name == "CC-BY-4.0" else set())):
            return _HUB.get(name, "other")
    return (
        "cc-by-4.0" if names <= {"ODC-By-1.0", "CC-BY-4.0", "CC-BY-3.0", "CC0-1.0", "MIT", "Apache-2.0", "PDDL-1.0"} else "other"
    )


def stated_licences(texts: Iterable[str]) -> dict[str, str]:
    """`NAME=LICENCE` of the command line.

    Raises:
        UsageError: another form.
    """
    stated = {}
    for text in texts:
        name, equals, licence = text.rpartition("=")
        if not equals or not licence.strip():
            raise UsageError(
                f"--licence {text!r} is not of the form NAME=LICENCE", "write for instance --licence 'lab=CC-BY-4.0'"
            )
        stated[name.strip()] = licence.strip()
    return stated
