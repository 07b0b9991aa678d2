"""A load generator: plan, schedule, sending, statistics and report, each on its own."""
