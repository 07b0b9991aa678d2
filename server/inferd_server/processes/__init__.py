"""Several processes as one server: supervisor, fronts, worker, replicas."""
