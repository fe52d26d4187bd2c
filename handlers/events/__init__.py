"""Events: what is on, who is invited, who comes, who waits for a seat."""
