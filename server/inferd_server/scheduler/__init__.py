"""What runs next: slots, queues and the decision."""
