"""TensorRT behind the engine interface: plans built, kept, checked, and run."""
