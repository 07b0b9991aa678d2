"""Requests with deadlines, simulated over the scheduler's own code and beside an ideal one."""
