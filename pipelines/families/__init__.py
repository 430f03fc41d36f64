"""One file per model family, each exporting ``Pipeline``. None imports another; all are found by name."""
