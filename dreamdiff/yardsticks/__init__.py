"""The encoder and the corpus as public yardsticks take them: Open EEG Bench, NeuralBench, braindecode. None of them need be installed to import this."""
