"""Closed-form steps that the learned encoders are measured against: alignment, log-power maps, their mirror, CSP.

Shapes: N windows, C channels, T samples, F bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from scipy.linalg import eigh
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from dreamdiff.estimators.checks import check_groups, check_windows, mirror_map
from dreamdiff.whitening import Align, band_passed, covariances, inverse_root, riemannian_mean, tangent_vectors, whiten_each
from eegprep.errors import DataError, UsageError

IMAGERY_BANDS = ((8.0, 13.0), (13.0, 20.0), (20.0, 32.0))  # Hz


class PersonAlignment(TransformerMixin, BaseEstimator):
    """Whitens windows by the unlabelled windows of their own person (He and Wu 2020).

    `transform` takes all windows it is given as one person's, unless `groups` names the people: what `moabb` and `cross_val_score`
    hand over for a held-out person is exactly that person's windows. It learns nothing in `fit`.

    Args:
        align: "euclidean" (mean covariance), "riemann" (Riemannian mean), "none" (one scale for all channels).
        shrinkage: share of the mean variance added to the diagonal.

    Example:
        make_pipeline(PersonAlignment(), CSP(), LinearDiscriminantAnalysis())
    """

    def __init__(self, align: Align = "euclidean", shrinkage: float = 0.01) -> None:
        self.align, self.shrinkage = align, shrinkage

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> Self:
        """Check the windows."""
        x_NCT = check_windows(X)
        if self.align not in ("none", "euclidean", "riemann"):
            raise UsageError(f"align={self.align!r}", "choose euclidean, riemann or none")
        self.n_channels_ = x_NCT.shape[1]
        return self

    def transform(self, X: Any, groups: Any = None) -> np.ndarray:
        """(N, C, T), whitened; `fit` need not have been called (MOABB's `postprocess_pipeline` never does)."""
        x_NCT = check_windows(X, getattr(self, "n_channels_", None))
        return whiten_each(x_NCT, check_groups(groups, len(x_NCT)), self.align, self.shrinkage)

    def fit_transform(self, X: Any, y: Any = None, groups: Any = None) -> np.ndarray:
        """Fit and transform the same windows, with the same people."""
        return self.fit(X, y, groups).transform(X, groups)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags


class LogPower(TransformerMixin, BaseEstimator):
    """Logarithm of each channel's power in some bands: the log-power map, (N, F x C).

    Args:
        sfreq: Hz. bands: Hz.
        align: whiten each band by the person's own windows first; "none" leaves it.
        centre: take off the person's mean over windows, so that only what changes between windows is left.
        shrinkage: of the whitening.

    Example:
        make_pipeline(LogPower(160.0), StandardScaler(), LogisticRegression(C=0.01))
    """

    def __init__(
        self, sfreq: float, bands: Sequence[tuple[float, float]] = IMAGERY_BANDS, align: Align = "euclidean", centre: bool = True,
        shrinkage: float = 0.01,
    ) -> None:  # fmt: skip
        self.sfreq, self.bands, self.align, self.centre, self.shrinkage = sfreq, bands, align, centre, shrinkage

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> Self:
        """Check the windows against the bands."""
        x_NCT = check_windows(X)
        for low, high in self.bands:
            if not 0 < low < high < self.sfreq / 2:
                raise UsageError(
                    f"a band of {low:g} to {high:g} Hz at {self.sfreq:g} Hz", f"choose bands below {self.sfreq / 2:g} Hz"
                )
        self.n_channels_ = x_NCT.shape[1]
        return self

    def transform(self, X: Any, groups: Any = None) -> np.ndarray:
        """(N, F x C), band by band."""
        check_is_fitted(self)
        x_NCT = check_windows(X, self.n_channels_)
        group_N = check_groups(groups, len(x_NCT))
        maps = []
        for low, high in self.bands:
            band_NCT: np.ndarray = band_passed(x_NCT, self.sfreq, low, high)
            if self.align != "none":
                band_NCT = whiten_each(band_NCT, group_N, self.align, self.shrinkage)
            # a flat channel has no power, and its logarithm must stay finite
            maps.append(np.log(np.maximum(np.square(band_NCT, dtype=np.float64).mean(-1), 1e-12)))
        features_ND = np.concatenate(maps, axis=1)
        return centred(features_ND, group_N) if self.centre else features_ND

    def fit_transform(self, X: Any, y: Any = None, groups: Any = None) -> np.ndarray:
        """Fit and transform the same windows, with the same people."""
        return self.fit(X, y, groups).transform(X, groups)


class Mirror(TransformerMixin, BaseEstimator):
    """A map minus its left-right mirror image: what a symmetric head and a lateral label ask for. Use it for lateral labels only.

    Args:
        channels: names, in the order of the windows' channels. The features are some numbers per channel, channels fastest.
    """

    def __init__(self, channels: Sequence[str]) -> None:
        self.channels = channels

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find every channel's mirror image."""
        self.mirror_ = mirror_map(self.channels)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """(N, D), as many features as before."""
        check_is_fitted(self)
        features_ND = np.asarray(X, float)
        parts, rest = divmod(features_ND.shape[1], len(self.mirror_))
        if rest:
            raise DataError(
                f"{features_ND.shape[1]} features are no whole number per channel ({len(self.mirror_)} channels)",
                "give a map per channel",
            )
        # the same exchange of channels inside each part of the features
        order = np.concatenate([self.mirror_ + part * len(self.mirror_) for part in range(parts)])
        return features_ND - features_ND[:, order]


class CSP(TransformerMixin, BaseEstimator):
    """Common spatial patterns for two classes: log power of the filters that differ most (Ramoser et al. 2000).

    Args:
        filters: an even number; half from each end. shrinkage: of the pooled covariance.
    """

    def __init__(self, filters: int = 6, shrinkage: float = 0.01) -> None:
        self.filters, self.shrinkage = filters, shrinkage

    def fit(self, X: Any, y: Any) -> Self:
        """Find the filters, from trace-normalised covariances."""
        x_NCT, y_N = check_windows(X), np.asarray(y)
        self.classes_ = np.unique(y_N)
        if len(self.classes_) != 2:
            raise DataError(f"CSP separates two classes, there are {len(self.classes_)}", "choose two labels, or LogPower")
        covariance_NCC = covariances(x_NCT)
        # by the trace: a loud window would decide alone
        trace_N = np.maximum(np.trace(covariance_NCC, axis1=1, axis2=2), 1e-300)
        first, second = ((covariance_NCC / trace_N[:, None, None])[y_N == label].mean(0) for label in self.classes_)
        total = first + second
        total += self.shrinkage * np.trace(total) / len(total) * np.eye(len(total))
        _, vectors = eigh(first, total)
        half = self.filters // 2
        self.filters_CF_ = np.concatenate([vectors[:, :half], vectors[:, -half:]], axis=1)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """(N, filters)."""
        check_is_fitted(self)
        x_NCT = check_windows(X, len(self.filters_CF_))
        power = np.square(np.einsum("cf,nct->nft", self.filters_CF_, x_NCT, optimize=True)).mean(-1)
        return np.log(np.maximum(power, 1e-12))


class EventCovariances(TransformerMixin, BaseEstimator):
    """Tangent vectors of each window's covariance with the classes' mean responses: for responses locked to an event.

    The mean window of every class is stacked under each window, so that the covariance holds how alike they are (Barachant and
    Congedo 2014), then its logarithm is taken about the Riemannian mean of the training windows. A strong choice for few electrodes.

    Args:
        shrinkage: share of the mean variance added to the diagonal of each covariance.

    Example:
        make_pipeline(EventCovariances(), LogisticRegression())
    """

    def __init__(self, shrinkage: float = 0.01) -> None:
        self.shrinkage = shrinkage

    def fit(self, X: Any, y: Any) -> Self:
        """Take the mean response of each class, and the Riemannian mean."""
        x_NCT, y_N = check_windows(X), np.asarray(y)
        self.classes_ = np.unique(y_N)
        if len(self.classes_) < 2:
            raise DataError(f"{len(self.classes_)} class in the labels (at least 2)", "give windows of two classes or more")
        self.responses_RT_ = np.concatenate([x_NCT[y_N == label].mean(0) for label in self.classes_])
        self.shape_ = x_NCT.shape[1:]
        self.root_ = inverse_root(riemannian_mean(self._stacked(x_NCT), tolerance=1e-6), 0.0)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """(N, M (M + 1) / 2), where M is the number of channels times one more than the number of classes."""
        check_is_fitted(self)
        return tangent_vectors(self._stacked(check_windows(X, *self.shape_)), self.root_)

    def _stacked(self, x_NCT: np.ndarray) -> np.ndarray:
        both = np.concatenate([np.broadcast_to(self.responses_RT_, (len(x_NCT), *self.responses_RT_.shape)), x_NCT], axis=1)
        both = both - both.mean(-1, keepdims=True)
        result = covariances(both)
        size = result.shape[-1]
        ridge_N = self.shrinkage * np.trace(result, axis1=1, axis2=2) / size
        return np.asarray(result + np.maximum(ridge_N, 1e-12)[:, None, None] * np.eye(size))


def centred(features_ND: np.ndarray, group_N: np.ndarray) -> np.ndarray:
    """Features minus their mean over each person's windows."""
    out = np.array(features_ND, float)
    for group in np.unique(group_N):
        out[group_N == group] -= out[group_N == group].mean(0)
    return out
