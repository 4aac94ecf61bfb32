"""Finds what is the same under another name: pictures that were copied, resized or compressed, and EEG that was exported again."""
