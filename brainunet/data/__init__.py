"""From a folder of NIfTI files to arrays a network can eat: find, read, check, preprocess, split, sample."""
