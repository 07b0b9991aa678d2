"""Plans on the GPU of this host: throughput beside the bare execution loop, and where time goes."""
