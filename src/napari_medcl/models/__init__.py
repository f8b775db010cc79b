"""What learns: the network and its projectors."""
