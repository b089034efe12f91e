"""PyTorch as its users run it, with fixed seeds: what run_all compares.

    torch_program.py STEPS [STAGE…]

Every stage has seeds of its own, so what it prints does not depend on which
others ran. One that fails says so ("failed STAGE …") and the next one begins.
Prints "stage …" lines, so that the end of a process says how far it came, a line
per training step with the loss in hexadecimal, "time NAME SECONDS" per model
(median step, the first ten left out), "note …" for what need not be the same
everywhere, and PASS when no stage failed.

POS_TORCH_DEVICE=cpu tries the program itself.
"""
import copy
import os
import statistics
import sys
import time
import zlib

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 40
SLOW_S = float(os.environ.get("POS_STEP_PAUSE_S", "0"))


def stage(name):
    print(f"stage {name}", flush=True)


stage("import")
import torch  # noqa: E402: the stage is printed first
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from torch_stages import NAMES  # noqa: E402

DEVICE = torch.device(os.environ.get("POS_TORCH_DEVICE", "cuda:0"))


class Transformer(nn.Module):
    """A small GPT: two layers, causal, over random tokens."""

    def __init__(self, words=512, width=256, length=64):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.place = nn.Parameter(torch.randn(length, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(width, words)
        self.register_buffer(
            "mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, tokens):
        hidden = self.embed(tokens) + self.place
        return self.out(self.layers(hidden, mask=self.mask, is_causal=True))


def told(name, tensor):
    """All bits of a result."""
    data = tensor.detach().float().cpu().contiguous().numpy().tobytes()
    print(f"digest {name} {zlib.crc32(data):08x}", flush=True)


def train(name, model, optimizer, batches, steps=STEPS, autocast=False):
    """`batches` gives pairs of inputs and targets without end."""
    criterion = nn.CrossEntropyLoss()
    times = []
    for step in range(steps):
        inputs, targets = next(batches)
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=autocast):
            output = model(inputs)
            loss = criterion(output.flatten(0, -2), targets.flatten())
        loss.backward()
        optimizer.step()
        value = loss.item()  # waits for the device
        times.append(time.perf_counter() - started)
        print(f"step {name} {step + 1}/{steps} {value.hex()}", flush=True)
        if SLOW_S:
            time.sleep(SLOW_S)
    print(f"time {name} {statistics.median(times[10:] or times):.6g}",
          flush=True)


def always(*batch):
    while True:
        yield batch


def perceptron():
    return nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024),
                         nn.ReLU(), nn.Linear(1024, 10)).to(DEVICE)


def tokens():
    words = torch.randint(512, (16, 65)).to(DEVICE)
    return words[:, :-1], words[:, 1:]


def fill():
    ones = torch.ones(1000, device=DEVICE)
    assert ones.sum().item() == 1000


def copies():
    there = torch.arange(1 << 16).to(DEVICE)
    assert torch.equal(there.cpu(), torch.arange(1 << 16))
    if DEVICE.type == "cuda":
        pinned = torch.arange(1 << 20).pin_memory()
        there = pinned.to(DEVICE, non_blocking=True)
        assert torch.equal(there.cpu(), pinned)


def matmul():
    a = torch.randn(512, 512).to(DEVICE)
    told("float", a @ a)
    told("bfloat16", a.bfloat16() @ a.bfloat16())
    told("batched", torch.bmm(a.view(8, 64, 512), a.view(8, 512, 64)))


def convolution():
    x = torch.randn(8, 16, 32, 32).to(DEVICE).requires_grad_()
    layer = nn.Conv2d(16, 32, 3, padding=1).to(DEVICE)
    y = layer(x)
    y.square().sum().backward()
    told("forward", y)
    told("backward", x.grad)


def fft():
    x = torch.randn(64, 1000).to(DEVICE)
    spectrum = torch.fft.rfft(x)
    told("spectrum", torch.view_as_real(spectrum))
    told("back", torch.fft.irfft(spectrum, n=1000))


def random():
    told("normal", torch.randn(10000, device=DEVICE))
    told("permutation", torch.randperm(1000, device=DEVICE))


def mlp():
    model = perceptron()
    train("mlp", model, torch.optim.SGD(model.parameters(), 0.05, momentum=0.9),
          always(torch.randn(256, 784).to(DEVICE),
                 torch.randint(10, (256,)).to(DEVICE)))


def transformer():
    model = Transformer().to(DEVICE)
    train("transformer", model, torch.optim.Adam(model.parameters(), 1e-3),
          always(*tokens()))


def autocast():
    model = Transformer().to(DEVICE)
    train("autocast", model, torch.optim.AdamW(model.parameters(), 1e-3),
          always(*tokens()), max(STEPS // 2, 2), autocast=True)


def loader():
    """Batches come from two worker processes, through pinned memory."""
    model = perceptron()
    data = TensorDataset(torch.randn(512, 784), torch.randint(10, (512,)))

    def batches():
        while True:
            for x, y in DataLoader(data, 64, shuffle=True, num_workers=2,
                                   pin_memory=DEVICE.type == "cuda"):
                yield x.to(DEVICE, non_blocking=True), y.to(DEVICE)
    train("loader", model, torch.optim.SGD(model.parameters(), 0.05),
          batches(), max(STEPS // 2, 2))


def graph():
    """A captured step, replayed: where the driver can."""
    if DEVICE.type != "cuda":
        print("note graph no device for it", flush=True)
        return
    model = perceptron()
    x = torch.randn(256, 784).to(DEVICE)
    again = copy.deepcopy(model)
    captured = torch.cuda.CUDAGraph()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            model(x)
    torch.cuda.current_stream().wait_stream(side)
    try:
        with torch.cuda.graph(captured):
            y = model(x)
        for _ in range(3):
            captured.replay()
    except RuntimeError as error:
        if "not supported" not in str(error):
            raise
        print(f"note graph not supported: {str(error).splitlines()[0]}",
              flush=True)
        return
    assert torch.equal(y, again(x))
    print("note graph works", flush=True)


# `graph` is last: a capture that fails halfway may leave PyTorch in disorder.
STAGES = {name: globals()[name] for name in NAMES}


def main():
    torch.use_deterministic_algorithms(True, warn_only=True)
    stage("device")
    if DEVICE.type == "cuda":
        print(f"device {torch.cuda.get_device_name(0)}", flush=True)
    failed = 0
    for i, (name, function) in enumerate(STAGES.items()):
        if sys.argv[2:] and name not in sys.argv[2:]:
            continue
        stage(name)
        torch.manual_seed(100 + i)
        try:
            function()
        except Exception as error:  # the other stages have a result, too
            failed += 1
            text = " ".join(str(error).split())
            print(f"failed {name} {type(error).__name__}: {text[:500]}",
                  flush=True)
    if failed:
        sys.exit(1)
    print("PASS", flush=True)


if __name__ == "__main__":
    main()
