"""Dials of the simulation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from eegprep.settings import Settings

# what a dial is when it is not given, by the kind of sources
_BY_SOURCES: dict[str, dict[str, float]] = {
    "network": {"snr": -16.0, "jitter": 12.0, "anatomy": 6.0},
    "linear": {"snr": -6.0, "jitter": 6.0, "anatomy": 3.0},
}
NETWORK_ONLY = ("sfreq", "length", "common", "category", "own")
CONCEPTS_ONLY = ("concepts", "test_concepts", "repetitions", "test_repetitions")


class SimulateConfig(Settings):
    """Dials of the simulation; see `viewing` for `sources` "network", and `simulate` for "linear"."""

    sources: Literal["network", "linear"] = Field(
        default="network",
        description="What drives the responses. network: EfficientNet-Lite0 through a non-linear map, added before the filter; "
        "linear: the CLIP vector itself, added after the filter, as in 0.1.0",
    )
    snr: float = Field(
        default=-16.0, description="Response over background, 0 to 500 ms, all channels, dB [default: -16; linear: -6]"
    )
    people: int = Field(default=2, description="Number of simulated people")
    first_person: int = Field(
        default=1, ge=1, description="Number of the first person: a number is the same person in every store"
    )
    trials: int = Field(default=30, description="Trials per category and person")
    block_order: Literal["random", "class"] = Field(
        default="random", description="Blocks of mixed categories (random), or of one category each (class)"
    )
    drift: float = Field(
        default=0.0,
        description="Change of the background from block to block: standard deviation of its log amplitude, e.g. 0.3 for about 30 %",
    )
    background: Literal["sample", "pink"] = Field(
        default="sample",
        description="Genuine recordings that ship with the package (sample), or 1/f noise of cortical sources (pink)",
    )
    seed: int = Field(default=0, description="Random seed of everything")
    test_share: float = Field(default=0.2, gt=0, lt=0.8, description="Share of the trials in the test part")
    sfreq: float = Field(default=512.0, ge=64, le=512, description="Sampling rate of the windows, Hz (network)")
    length: float = Field(default=1.0, ge=0.6, le=1.0, description="Length of the windows, s, from 0.2 s before onset (network)")
    common: float = Field(default=1.0, ge=0, description="Size of the response that every picture evokes (network)")
    category: float = Field(default=1.0, ge=0, description="Size of what all pictures of a category share (network)")
    own: float = Field(default=1.0, ge=0, description="Size of what belongs to one picture alone (network)")
    jitter: float = Field(
        default=12.0, ge=0, description="Standard deviation of the latency over trials, ms [default: 12; linear: 6]"
    )
    anatomy: float = Field(
        default=6.0, ge=0, description="Standard deviation of the sources' places over people, mm [default: 6; linear: 3]"
    )

    concepts: int | None = Field(
        default=None,
        ge=3,
        description="Number of concepts from icon sets (--drawings), in place of the 40 categories that ship; test concepts are new",
    )
    test_concepts: int = Field(
        default=200,
        ge=1,
        description="Number of concepts in the test part, one drawing each, from an icon set that training never saw",
    )
    repetitions: int = Field(
        default=1, ge=1, description="How often each person sees each training and validation drawing (concepts)"
    )
    test_repetitions: int = Field(default=20, ge=1, description="How often each person sees each test drawing (concepts)")

    @model_validator(mode="before")
    @classmethod
    def _by_sources(cls, given: Any) -> Any:
        return {**_BY_SOURCES.get(str(given.get("sources", "network")), {}), **given} if isinstance(given, dict) else given

    def recipe(self) -> dict[str, object]:
        """Plain JSON for the store; stores with linear sources say what they said in 0.1.0 unless a new dial was turned."""
        # stores of people from the first one on say what they said before there was another choice
        left_out = set() if self.first_person > 1 else {"first_person"}
        content = self.model_dump(mode="json", exclude=left_out | (set() if self.concepts else set(CONCEPTS_ONLY)))
        if self.sources == "network":
            return content
        usual = SimulateConfig(sources="linear").model_dump(mode="json")
        new = ("first_person", "sources", "test_share", "jitter", "anatomy", *NETWORK_ONLY, *CONCEPTS_ONLY)
        return {name: value for name, value in content.items() if name not in new or value != usual[name]}
