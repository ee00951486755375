"""A router as a model: behind the chat API, and for lm-eval."""
