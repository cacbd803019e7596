"""Export the recorded outcomes of findings as a cohort for training, without personal data."""
