"""Low rank: the weight that is computed with is the merged one, and its gradients are the product rule's."""

import pytest
import torch
from edgepress.compress.train.students.relative import LowRank, learn_low_rank
from torch import Tensor, nn


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("masked", [False, True])
def test_it_is_a_product_of_two_thin_matrices_added_where_the_mask_keeps(masked: bool) -> None:
    module = nn.Linear(6, 5, bias=False).requires_grad_(False)
    start, mask = random(5, 6), random(5, 6, seed=1) > 0
    module.weight.data = start * mask if masked else start.clone()
    unit = torch.tensor(0.5)
    learned = learn_low_rank("w", module, unit, lambda value: value, 2, 0, mask if masked else None)
    before = start * mask if masked else start
    assert torch.equal(learned.value, before)
    up, down = learned.changes
    with torch.no_grad():
        up += random(5, 2, seed=2)
    left, right = up.tolist(), down.tolist()
    product = torch.tensor(
        [[sum(left[i][r] * right[r][j] for r in range(2)) for j in range(6)] for i in range(5)]
    )
    expected = before + 0.5 * product * (mask if masked else 1)
    torch.testing.assert_close(learned.value, expected)
    gradient = random(5, 6, seed=3)
    module.weight.backward(gradient)  # type: ignore[no-untyped-call]
    kept = gradient * mask if masked else gradient
    torch.testing.assert_close(up.grad, 0.5 * kept @ down.T)
    torch.testing.assert_close(down.grad, 0.5 * up.T @ kept)
    assert not masked or not bool(learned.value[~mask].any())


def test_what_is_computed_with_is_rounded_as_it_is_stored() -> None:
    low_rank = LowRank(random(4, 4), torch.tensor(1.0), torch.round, 3, 0, None)
    with torch.no_grad():
        low_rank.up += 1
    value = low_rank(random(4, 4))
    assert torch.equal(value, value.round())


def test_the_rank_is_no_larger_than_the_matrix() -> None:
    learned = learn_low_rank("w", nn.Linear(3, 8), torch.tensor(1.0), lambda value: value, 16, 0)
    assert [tuple(part.shape) for part in learned.changes] == [(8, 3), (3, 3)]
