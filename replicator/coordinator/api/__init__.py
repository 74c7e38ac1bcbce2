"""The REST API under /api/v1, with health checks and metrics beside it."""
