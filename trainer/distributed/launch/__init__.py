"""Who launched this process: ranks, signals, requeue. Standard library only."""
