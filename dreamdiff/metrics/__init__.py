"""Arrays in, a `Measurement` out; and the frozen networks that judge images."""
