"""What happens to a router when something changes between what it learnt and what it meets."""
