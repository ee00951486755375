"""The task `mbpp_chat`."""
