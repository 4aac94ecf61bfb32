"""EEG-image pairs: format, writer, reader, splits, and the audit of what a split leaks."""
