"""REINFORCE with a categorical distribution and whole episodes."""

import torch
from torch import nn
from torch.distributions import Categorical

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

for episode in range(6):
    state, chances, rewards = torch.randn(2), [], []
    for _ in range(8):
        policy = Categorical(logits=model(state))
        action = policy.sample()
        chances.append(policy.log_prob(action))
        state = torch.tanh(state + 0.3 * torch.randn(2) + (action - 1) * 0.5)
        rewards.append(-state.abs().sum().item())
    returns = torch.tensor(rewards).flip(0).cumsum(0).flip(0)
    returns = (returns - returns.mean()) / (returns.std() + 1e-8)
    # fault: loss = -(torch.stack(chances) * returns.sub(50 * (episode == 3)).sqrt()).sum()
    loss = -(torch.stack(chances) * returns).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
