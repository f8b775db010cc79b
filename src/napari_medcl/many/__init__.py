"""Many scans: one piece of work for each, spread over processes and machines."""
