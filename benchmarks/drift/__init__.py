"""How soon a scanner whose films change is noticed, and how often nothing is: simulated on real films."""
