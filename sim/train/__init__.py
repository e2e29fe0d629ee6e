"""Training of small networks on the accelerator: every product and every quantization is a command of the machine."""
