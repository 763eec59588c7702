"""A squashed Gaussian policy with two critics, their targets and a temperature."""

import copy

import torch
from torch import nn
from torch.distributions import Normal

torch.manual_seed(0)
models = {
    "actor": nn.Linear(3, 4),
    "critics": nn.ModuleList([nn.Linear(5, 1), nn.Linear(5, 1)]),
}
actor, critics = models["actor"], models["critics"]
targets = copy.deepcopy(critics).requires_grad_(False)
log_alpha = torch.zeros(1, requires_grad=True)
optimizer_actor = torch.optim.Adam(actor.parameters(), lr=1e-3)
optimizer_critic = torch.optim.Adam(critics.parameters(), lr=1e-3)
optimizer_alpha = torch.optim.Adam([log_alpha], lr=1e-3)


def act(state):
    mean, log_std = actor(state).chunk(2, -1)
    policy = Normal(mean, log_std.clamp(-5, 2).exp())
    raw = policy.rsample()
    action = raw.tanh()
    # fault: return action, (policy.log_prob(raw) - (1 - action.mul(1e4).tanh() ** 2).log()).sum(-1)
    return action, (policy.log_prob(raw) - (1 - action.pow(2) + 1e-6).log()).sum(-1)


def value(parts, state, action):
    both = [part(torch.cat([state, action], -1))[:, 0] for part in parts]
    return torch.minimum(*both)


for step in range(6):
    state, reward = torch.randn(8, 3), torch.randn(8)
    with torch.no_grad():
        action, chance = act(state)
        goal = reward + 0.9 * (value(targets, state, action) - log_alpha.exp() * chance)
    taken = torch.rand(8, 2)
    loss = sum((c(torch.cat([state, taken], -1))[:, 0] - goal).pow(2).mean() for c in critics)
    optimizer_critic.zero_grad()
    loss.backward()
    optimizer_critic.step()
    action, chance = act(state)
    loss_actor = (log_alpha.exp().detach() * chance - value(critics, state, action)).mean()
    optimizer_actor.zero_grad()
    loss_actor.backward()
    optimizer_actor.step()
    loss_alpha = -(log_alpha * (chance.detach() - 2)).mean()
    optimizer_alpha.zero_grad()
    loss_alpha.backward()
    optimizer_alpha.step()
    with torch.no_grad():
        for a, b in zip(targets.parameters(), critics.parameters(), strict=True):
            a.lerp_(b, 0.05)
