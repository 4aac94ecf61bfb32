"""The reconstruction suite: known values, five choices in every name, and nothing in place of missing weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from tiny_evaluation import tiny_pairs

from cli.main import dreamdiff_app, run
from dreamdiff.evaluation import reconstructions as r
from dreamdiff.metrics.layers import load_layers, swav_tensors
from dreamdiff.metrics.reconstruction import suite
from dreamdiff.pairs.reader import Pairs
from eegprep.errors import DataError, ModelError


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """AlexNet's convolutions with random weights, under the published stem."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    convolutions = torchvision.models.alexnet(weights=None).features
    save_file(
        {f"features.{key}": value for key, value in convolutions.state_dict().items()},
        folder / "alexnet-owt-7be5be79.safetensors",
    )
    return folder


def colours(count, seed=0):
    """Pictures of random blocks."""
    blocks = np.random.default_rng(seed).integers(0, 255, (count, 4, 4, 3), np.uint8)
    return blocks.repeat(8, 1).repeat(8, 2)


def named(measurements):
    return {m.name: m for m in measurements}


def test_the_shown_pictures_themselves_reach_the_top_and_others_the_floor(weights):
    """PixCorr and SSIM of 1, every comparison won; pictures of other trials win half of the two-way ones."""
    layers, _ = load_layers(weights)
    truth, image = colours(12), np.arange(12)

    best = named(suite(truth[:, None], truth, image, 1, layers=layers)[0])
    other = named(suite(colours(12, seed=1)[:, None], truth, image, 1, layers=layers)[0])

    assert best["pixcorr/correlation/people=1/samples=mean-of-1"].value == pytest.approx(1)
    assert best["ssim/index/people=1/samples=mean-of-1"].value == pytest.approx(1, abs=1e-5)
    for layer in ("alexnet-2", "alexnet-5"):
        two_way = f"{layer}/share/distractors=1/judge={layer}/people=1/samples=mean-of-1"
        assert best[two_way].value == 1 and best[two_way].floor == 0.5
        assert best[f"{layer}/share/distractors=all-11/judge={layer}/people=1/samples=mean-of-1"].value == 1
        assert other[two_way].value == pytest.approx(0.5, abs=0.3)
    assert abs(other["pixcorr/correlation/people=1/samples=mean-of-1"].value) < 0.2


def test_two_way_is_easier_than_all_at_once_and_best_of_samples_is_marked(weights):
    """Half noise, half picture: the three ways of counting differ, and the name says which is which."""
    layers, _ = load_layers(weights)
    truth = colours(10)
    noisy = np.stack([(0.35 * truth + 0.65 * colours(10, seed)).astype(np.uint8) for seed in (5, 6)], axis=1)

    found = named(suite(noisy, truth, np.arange(10), 3, layers=layers)[0])

    tail = "judge=alexnet-2/people=mean-of-3/samples"
    two_way, all_ways = (found[f"alexnet-2/share/distractors={d}/{tail}=mean-of-2"].value for d in ("1", "all-9"))
    assert two_way > all_ways
    best = found[f"alexnet-2/correlation/{tail}=best-of-2"]
    assert best.value > found[f"alexnet-2/correlation/{tail}=mean-of-2"].value
    assert best.floor is None and "no measure of decoding" in best.note


def test_what_has_no_weights_is_named_with_the_file_that_is_missing(weights, tmp_path):
    """Never a substitute; other weights under the right name are refused."""
    layers, missing = load_layers(weights)
    assert sorted(layers) == ["alexnet-2", "alexnet-5"] and sorted(missing) == ["inception", "swav"]
    assert missing["swav"].startswith(f"not computed: no weights at {weights / 'swav_800ep_pretrain.pth.tar'}")
    assert sorted(load_layers(None)[1]) == ["alexnet-2", "alexnet-5", "inception", "swav"]
    save_file({"features.0.weight": torch.zeros(3)}, tmp_path / "alexnet-owt-7be5be79.safetensors")
    with pytest.raises(ModelError, match="not the weights of torchvision's AlexNet"):
        load_layers(tmp_path)


def test_swavs_file_gives_the_backbone_alone():
    """Its authors publish names with `module.`, a projection head and prototypes."""
    content = {
        "module.conv1.weight": torch.ones(2),
        "module.projection_head.0.weight": torch.ones(1),
        "module.prototypes.weight": torch.ones(1),
    }

    assert list(swav_tensors(content, Path("swav.pth"))) == ["conv1.weight"]
    for other, reason in (
        (content | {"module.fc.weight": torch.ones(1)}, "classifier"),
        ({"layer.weight": torch.ones(1)}, "no tensor"),
    ):
        with pytest.raises(ModelError, match=f"swav.pth: .*{reason}"):
            swav_tensors(other, Path("swav.pth"))


def test_one_command_measures_a_folder_of_pictures_and_refuses_an_uneven_one(weights, tmp_path, capsys):
    """The pictures that were shown as reconstructions: PixCorr 1, in the row of the reconstructions and not in that of another picture."""
    store = Pairs.open(tiny_pairs())
    test = store.split()["test"]
    made = tmp_path / "made"
    made.mkdir()
    for position, picture in zip(test, store.images(test, size=32), strict=True):
        Image.fromarray(picture).save(made / f"trial-{int(store.indices[position]):06d}_seed-0.png")
    line = [
        "evaluate",
        "--reconstructions",
        str(made),
        "--pairs",
        str(store.path),
        "--suite",
        str(weights),
        "--clip",
        "none",
        "--out",
        str(tmp_path / "out"),
    ]

    assert run(dreamdiff_app, "dreamdiff", [*line, "--set", f"sd={tmp_path}"]) == 0

    out = capsys.readouterr()
    found = json.loads((tmp_path / "out/report.json").read_text())
    pixcorr = "pixcorr/correlation/people=1/samples=mean-of-1"
    values = {row: {m["name"]: m["value"] for m in measurements} for row, measurements in found["rows"].items()}
    assert values[r.MADE][pixcorr] == pytest.approx(1) and values[r.OTHER][pixcorr] < 0.9
    assert set(found["not_computed"]) >= {"inception", "swav", "clip", r.ORACLE, r.RANDOM} and len(found["choices"]) == 5
    assert "not computed" in out.err
    assert "Best-of rows" in (tmp_path / "out/report.html").read_text()
    Image.fromarray(store.images(test[:1], size=32)[0]).save(made / f"trial-{int(store.indices[test[0]]):06d}_seed-1.png")
    with pytest.raises(DataError, match="trials with 1 and with 2 samples"):
        r.read_reconstructions(made, store, test)
