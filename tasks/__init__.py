"""What is learnt: one folder per task, each fulfilling the contract in `tasks.task`."""
