"""What is asked of a task: a selection and what it is worth, or how well attribution predicts."""
