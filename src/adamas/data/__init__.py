"""Data sets: uint8 in memory, one format per file; `Data` is what every step of the main line is handed."""

from adamas.data.images import AnyDataset, Augment, Data, Dataset, Images, Split, from_loaders, load

__all__ = ["AnyDataset", "Augment", "Data", "Dataset", "Images", "Split", "from_loaders", "load"]
