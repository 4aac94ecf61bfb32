"""What is exchanged: models and EEG-image pairs as repositories, with their chain of licences and a card made from the run; public pairs by name."""
