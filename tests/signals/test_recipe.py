"""Which settings make which numbers, and which changes touch which subjects."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eegprep.recording import CutFacts, Facts
from eegprep.signals.recipe import Recipe, make_recipe, recipe_fingerprint
from eegprep.steps.jobs import relevant_settings

FAST = Facts(original_sfreq=250.0, channels=64, amplitude=20.0, cut=CutFacts(shortest=5000, total=9))
SLOW = replace(FAST, original_sfreq=160.0)


def test_defaults_are_those_of_the_paper():
    """5-95 Hz, 512 samples, 128 channels by replication, no notch, no resampling."""
    recipe = Recipe()

    assert (recipe.low, recipe.high, recipe.window, recipe.channels) == (5.0, 95.0, 512, 128)
    assert (recipe.mode, recipe.notch, recipe.resample) == ("replicate", None, None)


def test_equal_recipes_have_equal_fingerprints_and_others_do_not():
    """The fingerprint decides whether a corpus may be continued."""
    assert recipe_fingerprint(Recipe()) == recipe_fingerprint(make_recipe(high=95, low=None))
    assert recipe_fingerprint(Recipe()) != recipe_fingerprint(make_recipe(high=94))


@pytest.mark.parametrize(
    ("change", "touched"),
    [
        ({"high": 45.0}, True),
        ({"window": 256}, True),
        ({"nyquist": "skip"}, False),
        ({"short": "stretch"}, False),
        ({"seed": 7}, False),
        ({"max_per_subject": 9}, False),
        ({"max_per_subject": 8}, True),
        ({"min_channels": 64}, False),
        ({"min_channels": 65}, True),
        ({"max_uv": 21.0}, False),
        ({"max_uv": 19.0}, True),
        ({"channel_order": "canonical"}, True),
    ],
)
def test_a_change_touches_a_subject_only_if_it_changes_its_numbers(change, touched):
    """Rebuilding 500 people because of a rule that concerns three of them would cost a night."""
    before, after = relevant_settings(Recipe(), [FAST]), relevant_settings(make_recipe(**change), [FAST])

    assert (before != after) is touched


def test_the_nyquist_rule_touches_slow_recordings():
    """The other side of the claim above."""
    assert relevant_settings(Recipe(), [SLOW]) != relevant_settings(make_recipe(nyquist="skip"), [SLOW])
