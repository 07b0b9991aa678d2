"""Models made of models: PyTorch to ONNX, FP32 to INT8, FP16 and BF16, and two of them compared."""
