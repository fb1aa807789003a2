"""What every experiment has: the run, its loggers, repetitions, comparisons, what it leaves behind."""
