"""What a run writes while it trains: metrics of every update, TensorBoard, progress on the console, validations."""
