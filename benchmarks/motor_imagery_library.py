"""What braindecode brings to benchmarks/motor_imagery.py: networks trained from scratch, and their output with random weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from motor_imagery import RATE, Method, Trials, logistic, narrow

from dreamdiff.encoders.library import LibraryConfig, LibraryEncoder
from dreamdiff.estimators.steps import PersonAlignment, centred

EPOCHS = 20


def networks() -> dict[str, Method]:
    """ShallowConvNet and EEGNet on aligned windows; empty, and says so, where braindecode is not installed."""
    try:
        import torch
        from braindecode import EEGClassifier as Trainer
        from braindecode.models import EEGNet, ShallowFBCSPNet
    except ImportError as error:
        print(f"ShallowConvNet and EEGNet are left out ({error}); fix: pip install braindecode\n")
        return {}

    def trainer(network: type) -> Callable[[Trials], object]:
        def make(trials: Trials) -> object:
            torch.manual_seed(0)
            _, channels, samples = trials.x_NCT.shape
            module = network(n_chans=channels, n_outputs=2, n_times=samples)
            return Trainer(
                module, optimizer=torch.optim.AdamW, optimizer__lr=1e-3, batch_size=64, max_epochs=EPOCHS, train_split=None, verbose=0,
                iterator_train__shuffle=True, classes=[0, 1],
            )  # fmt: skip

        return make

    prepare = lambda t: lambda x: PersonAlignment().fit_transform(narrow(x)).astype(np.float32)  # noqa: E731
    return {
        "aligned, ShallowConvNet": Method(prepare, trainer(ShallowFBCSPNet)),
        "aligned, EEGNet": Method(prepare, trainer(EEGNet)),
    }


def frozen(name: str) -> Method:
    """What one of braindecode's networks gives with random weights, centred per person, with a linear classifier: a floor for those that
    were trained.

    Args:
        name: as in `braindecode:NAME`.
    """
    import torch

    def of(trials: Trials) -> Callable[[np.ndarray], np.ndarray]:
        torch.manual_seed(0)
        _, channels, samples = trials.x_NCT.shape
        encoder = LibraryEncoder(LibraryConfig(model=name, channels=channels, window=samples, sfreq=RATE)).eval()

        @torch.no_grad()
        def features(x_NCT: np.ndarray) -> np.ndarray:
            parts = [encoder(torch.from_numpy(part).float()) for part in np.array_split(x_NCT, -(-len(x_NCT) // 32))]
            given_ND = torch.cat(parts)[:, 0].double().numpy()  # one token
            return centred(given_ND, np.zeros(len(given_ND)))

        return features

    return Method(of, lambda t: logistic())
