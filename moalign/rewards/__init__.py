"""A reward model with a head per attribute, trained on rated answers (`moalign reward-model`).

- `settings`, `data`: what is asked for, and the ratings of all sources, united and masked
- `encoder`: any sequence classifier, as features and a last linear layer
- `heads`: that layer in closed form
- `adapter`, `fitting`: fine-tuning what lies beneath
- `metrics`, `card`: how good it is on held-out ratings, and where that is written
- `training`: the command
"""
