"""The stages of torch_program.py in their order, for those without PyTorch."""
NAMES = ("fill", "copies", "matmul", "convolution", "fft", "random", "mlp",
         "transformer", "autocast", "loader", "graph")
