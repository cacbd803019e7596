"""What became of findings, exported as a cohort to train on, without whose they are."""
