"""From a folder of photos to a dataset."""
