"""Models on disk and in memory: configuration, loading, versions, trials, readiness."""
