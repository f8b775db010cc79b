"""What the methods compute: their losses, and the modules that are trained. All of it needs torch."""
