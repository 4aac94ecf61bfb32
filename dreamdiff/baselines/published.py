"""What was printed of each baseline, for the table "published / ours": figures of other data, so that nobody takes them for a comparison."""

from __future__ import annotations

PUBLISHED: dict[str, str] = {
    "brain2image-vae": "inception score 4.49, six people, 40 categories of ImageNet-EEG (Kavasidis et al. 2017)",
    "brain2image-gan": "inception score 5.06 (DreamDiffusion's Table 1), ImageNet-EEG",
    "thoughtviz": "inception score about 5.4, ten imagined objects, 14 electrodes (as later papers quote Tirupattur et al. 2018)",
    "takagi": "two-way identification 83 % AlexNet-2, 77 % CLIP; fMRI of NSD, four people (as later papers table Takagi and Nishimoto 2023)",
    "linear": "Perceptogram, PixCorr 0.247, SSIM 0.431; one person of THINGS-EEG2, 80 repetitions averaged",
    "label-input": "97.2 % 50-way (DreamDiffusion, section 4.4)",
    "label-supervision": "86.7 % 50-way (DreamDiffusion, section 4.4)",
}
"""Name of a baseline -> its printed figure with data and source."""
