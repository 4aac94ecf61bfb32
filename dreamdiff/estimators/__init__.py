"""scikit-learn steps on EEG windows: alignment, log-power maps, features of a frozen encoder, a fine-tuned classifier.

They fit into any pipeline and into `moabb.evaluations`; nothing here reads a store.
"""
