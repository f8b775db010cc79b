"""The screen: the only place that imports napari or Qt."""
