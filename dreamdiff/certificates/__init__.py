"""Certificates: which part of a system earns its accuracy, measured on the same trials and stored so that it can be checked."""
