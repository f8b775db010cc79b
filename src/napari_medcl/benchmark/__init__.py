"""Label efficiency: the same network from several starts, with ever more labelled patients, measured on a test set."""
