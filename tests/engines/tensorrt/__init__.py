"""TensorRT over doubles, and the real builder of TensorRT-RTX."""
