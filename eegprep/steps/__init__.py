"""The steps `fetch`, `filter`, `pad` and `build`: plan, skip what is done, run the jobs, commit."""
