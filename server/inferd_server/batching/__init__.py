"""From waiting requests to runs of an engine: queue, slots, batches, runner."""
