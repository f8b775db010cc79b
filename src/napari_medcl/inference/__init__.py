"""From a checkpoint to labels, and how good they are."""
