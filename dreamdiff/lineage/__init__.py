"""What a model was trained on before it is judged: kept with every run, compared with the judged trials."""
