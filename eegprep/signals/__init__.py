"""One recording in memory: gates, filter, windows, padding, electrodes, spectra.

Arrays in, arrays out. Nothing here opens a file, knows a data set or a store.
"""
