"""PyTorch as its users run it, with fixed seeds: what run_all compares.

    torch_program.py STEPS

Prints "stage …" lines, so that a failure says how far it came, a line per
training step with the loss in hexadecimal, one "time NAME SECONDS" line per
model (median step, the first ten left out), and PASS.
"""
import os
import statistics
import sys
import time

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 40
SLOW_S = float(os.environ.get("POS_STEP_PAUSE_S", "0"))


def stage(name):
    print(f"stage {name}", flush=True)


stage("import")
import torch  # noqa: E402: the stage is printed first
from torch import nn  # noqa: E402


class Transformer(nn.Module):
    """A language model of two layers over random tokens."""

    def __init__(self, words=512, width=256, length=64):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.place = nn.Parameter(torch.randn(length, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(width, words)

    def forward(self, tokens):
        return self.out(self.layers(self.embed(tokens) + self.place))


def train(name, model, optimizer, inputs, targets):
    criterion = nn.CrossEntropyLoss()
    times = []
    for step in range(STEPS):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        output = model(inputs)
        loss = criterion(output.flatten(0, -2), targets.flatten())
        loss.backward()
        optimizer.step()
        value = loss.item()  # waits for the device
        times.append(time.perf_counter() - started)
        print(f"step {name} {step + 1}/{STEPS} {value.hex()}", flush=True)
        if SLOW_S:
            time.sleep(SLOW_S)
    print(f"time {name} {statistics.median(times[10:] or times):.6g}",
          flush=True)


def main():
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(7)
    stage("device")
    device = torch.device("cuda:0")
    print(f"device {torch.cuda.get_device_name(0)}", flush=True)
    stage("fill")
    ones = torch.ones(1000, device=device)
    assert ones.sum().item() == 1000
    stage("copy")
    there = torch.arange(1 << 16).to(device)
    assert torch.equal(there.cpu(), torch.arange(1 << 16))
    stage("matmul")
    a = torch.randn(512, 512, device=device)
    b = (a @ a).sum().item()
    print(f"matmul {b.hex()}", flush=True)
    stage("mlp, SGD")
    torch.manual_seed(8)
    mlp = nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024),
                        nn.ReLU(), nn.Linear(1024, 10)).to(device)
    train("mlp", mlp, torch.optim.SGD(mlp.parameters(), 0.05, momentum=0.9),
          torch.randn(256, 784, device=device),
          torch.randint(10, (256,), device=device))
    stage("transformer, Adam")
    torch.manual_seed(9)
    model = Transformer().to(device)
    tokens = torch.randint(512, (16, 65), device=device)
    train("transformer", model, torch.optim.Adam(model.parameters(), 1e-3),
          tokens[:, :-1], tokens[:, 1:])
    print("PASS", flush=True)


main()
