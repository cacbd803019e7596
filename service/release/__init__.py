"""Releases: which bundles and tables a centre's nodes are to use, named in a file that a person has signed."""
