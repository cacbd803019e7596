"""Drift and agreement: what comes in, what the networks see and say, how doctors sign, by site, device and week."""
