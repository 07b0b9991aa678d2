"""Models made of models: PyTorch to ONNX, FP32 to INT8 and FP16, and two of them compared."""
