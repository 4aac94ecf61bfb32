"""What the simulated twin of a design reached, from a table of measured twins."""

CATEGORIES = (2, 4, 10, 40)
TRAINING = (5, 10, 20, 40)
REPETITIONS = (1, 2, 4, 8, 16)
SFREQ = 128.0
