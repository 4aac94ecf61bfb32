"""The one training loop: task, draws, checkpoints, optimiser, history.

Nothing here knows EEG or images.
"""
