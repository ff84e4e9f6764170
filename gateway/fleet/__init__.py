"""The fleet: the processes that share one queue, what each of them reports, and what they send each other."""
