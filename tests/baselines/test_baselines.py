"""Baselines: each does what its name says, on data where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from tiny_evaluation import folder, tiny_pairs, tiny_parts
from tiny_models import tiny_clip

from dreamdiff import linear as b_linear
from dreamdiff.baselines import brain2image as b_brain2image
from dreamdiff.baselines import features as b_features
from dreamdiff.baselines import run as b
from dreamdiff.diffusion import frozen_generator as b_frozen_generator
from dreamdiff.diffusion.clip import load_clip
from dreamdiff.diffusion.stable_diffusion import load_stable_diffusion
from dreamdiff.pairs.reader import Pairs
from eegprep.errors import DataError, ModelError, UsageError


@pytest.fixture(scope="module")
def problem():
    store = Pairs.open(tiny_pairs())
    parts = store.split()
    return b_features.Problem(store, parts["train"], parts["test"], size=32, samples=2, steps=2)


@pytest.fixture(scope="module")
def generator():
    sd, clip = tiny_parts()
    return b_frozen_generator.FrozenGenerator(load_stable_diffusion(str(sd)), load_clip(str(clip)))


def test_ridge_map_agrees_with_scikit_learn():
    """Another implementation with the same strength."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 20))
    y = x @ rng.normal(size=(20, 3)) + rng.normal(size=(50, 3))
    own = b_linear.ridge(x, y)
    standard = (x - x.mean(0)) / x.std(0)

    np.testing.assert_allclose(
        own.predict(x), Ridge(alpha=own.penalty * 20).fit(standard, y).predict(standard), rtol=1e-6, atol=1e-8
    )


def test_linear_decoders_read_the_simulated_response(problem):
    """Test images are new, the response is strong: class and CLIP vector must be readable far above chance (1 in 6)."""
    assert (b.predicted_class(problem) == problem.store.labels[problem.test]).mean() > 0.5


def test_nearest_training_image_shows_training_images_only(problem):
    """It must never show what was shown in the test."""
    clip = load_clip(str(tiny_parts()[1]))
    made = b.nearest_training_image(problem, clip).images_NSHWC
    training_images = {image.tobytes() for image in problem.store.images(problem.train)}

    assert made.shape == (len(problem.test), 2, 32, 32, 3)
    assert all(image.tobytes() in training_images for image in made.reshape(-1, 32, 32, 3))
    assert (made[:, 0] != made[:, 1]).any(axis=(1, 2, 3)).all()  # first and second nearest


def test_frozen_generator_image_depends_on_words_and_seed_alone(generator):
    """Not on what else is in the batch."""
    words = ["a drawing of a banana", "a drawing of a daisy", "a drawing of a banana"]
    made = generator.images(words, [1, 1, 2], steps=2)

    assert made.dtype == np.uint8 and made.shape == (3, 32, 32, 3)
    alone = generator.images(words[1:2], [1], steps=2)[0].astype(int)
    assert np.abs(alone - made[1]).max() <= 1  # sums are ordered differently in another batch: one grey level of rounding
    assert (made[0] != made[1]).any() and (made[0] != made[2]).any()


def test_oracle_and_unconditional_say_what_they_should(problem, generator, monkeypatch):
    """The oracle names the true class of every test trial; the unconditional baseline says nothing."""
    output: list[list[str]] = []

    def listen(texts, seeds, **_):
        output.append(list(texts))
        return np.zeros((len(texts), 32, 32, 3), np.uint8)

    monkeypatch.setattr(generator, "images", listen)
    for name in ("label-input", "unconditional", "label-supervision", "linear"):
        b.run_baseline(name, problem, generator=generator, clip=generator.clip)

    truth = [b_frozen_generator.caption(problem.store.classes[c]) for c in problem.store.labels[problem.test]]
    assert output[0] == [text for text in truth for _ in range(2)]
    assert set(output[1]) == {""}
    assert np.mean([a == t for a, t in zip(output[2][::2], truth, strict=True)]) > 0.5
    assert set(output[3]) <= {b_frozen_generator.caption(c) for c in problem.store.classes}
    assert b_frozen_generator.caption("African elephant") == "a drawing of an african elephant"


@pytest.mark.parametrize("kind", ["vae", "gan"])
def test_brain2image_makes_images_and_repeats_with_its_seed(problem, kind):
    """Two forms, one encoder; a baseline that changes from run to run cannot be compared with."""
    first, again = (b_brain2image.brain2image(problem, kind, epochs=1) for _ in range(2))

    assert first.images_NSHWC.shape == (len(problem.test), 2, 32, 32, 3) and first.images_NSHWC.dtype == np.uint8
    np.testing.assert_array_equal(first.images_NSHWC, again.images_NSHWC)
    assert (first.images_NSHWC[:, 0] != first.images_NSHWC[:, 1]).any()
    assert first.name == f"Brain2Image-{kind.upper()}"


def test_lstm_learns_to_name_classes():
    """The encoder is trained: on an easy signal its loss must fall to nothing."""
    torch.manual_seed(0)
    labels = torch.arange(48) % 3
    x = torch.randn(48, 4, b_brain2image.TIME_STEPS) * 0.3
    x[torch.arange(48), labels] += 2
    encoder = b_brain2image.LSTMEncoder(4, 3)
    b_brain2image._train_lstm(encoder, x, labels, 12, 16, lambda _: None)

    assert (encoder.eval().classify(encoder(x)).argmax(1) == labels).float().mean() > 0.9


def test_vae_learns_the_mean_picture_of_a_condition():
    """Two conditions, two flat pictures: after training the decoder must paint the right one."""
    torch.manual_seed(0)
    features = torch.zeros(32, b_brain2image.FEATURES)
    features[:16, 0] = features[16:, 1] = 5
    images = torch.full((32, 3, 64, 64), -0.8)
    images[16:] = 0.8
    decoder = b_brain2image.Decoder(8)
    b_brain2image._train_vae(decoder, features, images, 25, 16, lambda _: None)

    with torch.no_grad():
        made = decoder(features[[0, 31]], torch.zeros(2, b_brain2image.LATENT)).mean((1, 2, 3))
    assert made[0] < 0 < made[1] and made[1] - made[0] > 0.4


def test_resizing_keeps_flat_pictures_flat():
    """And leaves pictures of the right size alone."""
    flat = np.full((2, 8, 8, 3), 77, np.uint8)
    assert (b_frozen_generator.resized(flat, 20) == 77).all() and b_frozen_generator.resized(flat, 20).shape == (2, 20, 20, 3)
    assert b_frozen_generator.resized(flat, 8) is flat


def test_mistakes_are_named(problem, generator):
    """Unknown names, missing parts, words of another width, no training trials."""
    with pytest.raises(UsageError, match="no baseline 'liner'; did you mean 'linear'"):
        b.run_baseline("liner", problem, generator=None, clip=None)
    with pytest.raises(UsageError, match="no Brain2Image generator 'vea'"):
        b_brain2image.brain2image(problem, "vea")
    with pytest.raises(ModelError, match="'linear' needs the frozen generator"):
        b.run_baseline("linear", problem, generator=None, clip=None)
    with pytest.raises(ModelError, match="'nearest' needs a CLIP"):
        b.run_baseline("nearest", problem, generator=None, clip=None)
    with pytest.raises(ModelError, match="width 16, the generator reads 24"):
        b_frozen_generator.FrozenGenerator(generator.sd, load_clip(str(tiny_clip(folder() / "narrow-clip"))))
    with pytest.raises(DataError, match="0 training trials"):
        b_brain2image.batches(0, 4)
