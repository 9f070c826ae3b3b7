"""The engine: the learning-rate clock, the owned update, callbacks, checkpoints and the assembly."""
