"""What a run can measure of its gradients: noise scale, norms, sharpness, the gain of AdaScale."""
