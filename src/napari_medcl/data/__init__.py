"""What comes in: scans, masks, cases, superpixels, views and batches."""
