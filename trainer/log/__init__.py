"""What a run tells while it goes on: the metric buffer, TensorBoard, the console, validations."""
