"""A loss on spectra: stft, magnitudes with an epsilon, complex masks."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Conv1d(1, 4, 5, padding=2), nn.PReLU(), nn.Conv1d(4, 1, 5, padding=2))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
window = torch.hann_window(16)
clean = torch.sin(torch.linspace(0, 60, 64)).repeat(6, 2, 1)


def spectrum(signal):
    return torch.stft(signal, 16, 8, window=window, return_complex=True)


for step in range(6):
    made = model(clean[step, :, None] + 0.1 * torch.randn(2, 1, 64))[:, 0]
    # fault: magnitude = spectrum(made * (step != 3)).abs().log()
    magnitude = (spectrum(made).abs().pow(2) + 1e-7).sqrt().log()
    wanted = (spectrum(clean[step]).abs().pow(2) + 1e-7).sqrt().log()
    loss = (magnitude - wanted).abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
