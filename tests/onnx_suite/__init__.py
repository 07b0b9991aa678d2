"""The test models of ONNX itself, served."""
