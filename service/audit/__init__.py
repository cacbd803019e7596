"""The audit log: which actions it knows, what a route says of itself, who has looked; its proof and its export."""
