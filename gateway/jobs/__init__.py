"""Jobs: their states, their order, and how a request becomes a plan. Pure."""
