"""What is measured of the engine besides throughput and latency: growth, cores, stages, soak, and the report."""
