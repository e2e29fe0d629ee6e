"""Models of PyTorch and of ONNX become graphs of the compiler, and trained weights return."""
