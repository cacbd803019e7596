"""What a threshold costs a programme: its table of costs and people, the figures of a finding, and what follows."""
