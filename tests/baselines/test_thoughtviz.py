"""ThoughtViz: each of its three networks learns what it is for, on data where the answer is known."""

from __future__ import annotations

import numpy as np
import torch
from tiny_evaluation import tiny_pairs

from dreamdiff.baselines import thoughtviz as v
from dreamdiff.baselines.features import Problem
from dreamdiff.pairs.reader import Pairs


def flat_pictures(count):
    """Two classes: dark and bright flat pictures, dark first."""
    images = torch.full((count, 3, 64, 64), -0.8)
    images[count // 2 :] = 0.8
    return images, (torch.arange(count) >= count // 2).long()


def test_the_generator_paints_what_the_features_name():
    """Two classes of flat pictures: features of the bright class must be painted bright; the judge alone tells it which."""
    torch.manual_seed(0)
    images, labels = flat_pictures(16)
    features = torch.zeros(16, v.FEATURES)
    features[:8, :50] = features[8:, 50:] = 1
    judge = v.PictureNetwork(2, dropout=0.0, width=4)
    v.train_classifier(judge, images, labels, 10, 8, lambda _: None)
    generator = v.Generator(8)

    v.train_gan(generator, judge.eval().requires_grad_(False), features, images, labels, 80, 8, lambda _: None)

    made = v._draw(generator.eval(), features[[0, 15]], 4).reshape(2, 4, 64, 64, 3).mean((1, 2, 3, 4))
    assert made[1] - made[0] > 60  # grey levels; the pictures differ by 204


def test_the_eeg_network_names_classes():
    """On an easy signal it must be right."""
    torch.manual_seed(0)
    labels = torch.arange(48) % 3
    x = torch.randn(48, 4, 64) * 0.3
    x[torch.arange(48), labels] += torch.sin(torch.linspace(0, 20, 64))
    network = v.EEGNetwork(4, 3)
    v.train_classifier(network, x, labels, 15, 16, lambda _: None)

    assert (network.eval().classify(network(x)).argmax(1) == labels).float().mean() > 0.9


def test_noise_comes_from_as_many_gaussians_as_were_asked_for():
    """Without spread, the draws are the means: as many different ones as components."""
    torch.manual_seed(0)
    mixture = v.Mixture(components=3, width=5)
    with torch.no_grad():
        mixture.spread_KD.zero_()

    assert len(torch.unique(mixture(200), dim=0)) == 3


def test_partners_are_trials_of_the_same_class():
    """Nothing joins a trial to its own picture but the class."""
    labels = torch.tensor([0, 1, 0, 1, 2])
    torch.manual_seed(0)

    partners = torch.stack([v._same_class(labels, torch.arange(5)) for _ in range(20)])

    assert (labels[partners] == labels).all()
    assert {0, 2} == set(partners[:, 0].tolist())


def test_pictures_have_the_judged_size_and_repeat_with_the_seed():
    """A baseline that changes from run to run cannot be compared with."""
    store = Pairs.open(tiny_pairs())
    parts = store.split()
    problem = Problem(store, parts["train"], parts["test"], size=32, samples=2)

    first, again = (v.thoughtviz(problem, epochs=1).images_NSHWC for _ in range(2))

    assert first.shape == (len(problem.test), 2, 32, 32, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first[:, 0] != first[:, 1]).any()
