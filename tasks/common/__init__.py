"""What tasks share about training."""
