"""PPO: a rollout without gradients, several epochs of clipped updates."""

import torch
from torch import nn
from torch.distributions import Normal

torch.manual_seed(0)
model = nn.ModuleDict({"actor": nn.Linear(3, 2), "critic": nn.Linear(3, 1)})
log_std = nn.Parameter(torch.zeros(2))
model.register_parameter("log_std", log_std)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

for rollout in range(4):
    states = torch.randn(16, 3)
    with torch.no_grad():
        policy = Normal(model["actor"](states), log_std.exp())
        actions = policy.sample()
        before = policy.log_prob(actions).sum(-1)
        rewards = -(actions - states[:, :2]).pow(2).sum(-1)
        advantage = rewards - model["critic"](states)[:, 0]
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    for _ in range(3):
        policy = Normal(model["actor"](states), log_std.exp())
        # fault: ratio = (policy.log_prob(actions).sum(-1) - before + 200 * (rollout == 2)).exp()
        ratio = (policy.log_prob(actions).sum(-1) - before).exp()
        clipped = ratio.clamp(0.8, 1.2)
        loss = -torch.minimum(ratio * advantage, clipped * advantage).mean()
        loss = loss + 0.5 * (model["critic"](states)[:, 0] - rewards).pow(2).mean()
        loss = loss - 0.01 * policy.entropy().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
