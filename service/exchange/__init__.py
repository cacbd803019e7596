"""A node where the link is thin, and its centre: they exchange the state of each visit until both have the same."""
