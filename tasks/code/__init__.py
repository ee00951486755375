"""Programs in responses: found, run in the sandbox, graded."""
