"""Learning by simulation: cases without names, read blind on the pages of the clinic; figures and certificates."""
