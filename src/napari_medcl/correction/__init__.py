"""Corrections of masks: what was done, kept safe, and where to look next."""
