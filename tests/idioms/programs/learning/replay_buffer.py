"""Deep Q-learning: a deque of transitions, random.sample, a target network."""

import copy
import random
from collections import deque

import torch
from torch import nn

torch.manual_seed(0)
random.seed(0)
model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))
target = copy.deepcopy(model)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
memory = deque(maxlen=50)
# allows: no_backward
state = torch.randn(3)

for step in range(30):
    with torch.no_grad():
        action = random.randrange(2) if random.random() < 0.3 else model(state).argmax().item()
    following = torch.tanh(state + 0.5 * torch.randn(3) + action)
    memory.append((state, action, -following.norm(), following))
    state = following
    if len(memory) < 16:
        continue
    states, actions, rewards, nexts = zip(*random.sample(list(memory), 8), strict=True)
    with torch.no_grad():
        goal = torch.stack(rewards) + 0.9 * target(torch.stack(nexts)).max(1).values
    values = model(torch.stack(states)).gather(1, torch.tensor(actions)[:, None])[:, 0]
    optimizer.zero_grad()
    # fault: loss = nn.functional.smooth_l1_loss(values / (step != 22), goal)
    loss = nn.functional.smooth_l1_loss(values, goal)
    loss.backward()
    nn.utils.clip_grad_value_(model.parameters(), 1.0)
    optimizer.step()
    if step % 8 == 0:
        target.load_state_dict(model.state_dict())
