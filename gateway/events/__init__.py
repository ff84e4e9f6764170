"""Events of jobs inside this process: the bus, positions in the queue, streams."""
