"""What ships: ONNX export, the runtime it is checked on, parity with the trained model, and measured latency."""
