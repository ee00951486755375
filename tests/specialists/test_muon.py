import pytest
import torch

from specialists.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (16, 16)])
def test_the_steps_are_torchs_up_to_the_precision_of_bfloat16(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizers = Muon([ours], lr=0.02), torch.optim.Muon([theirs], lr=0.02)
    for _ in range(5):
        gradient = torch.randn(shape, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    moved = float((theirs - start).detach().abs().max())
    assert float((ours - theirs).detach().abs().max()) < 0.02 * moved
    assert moved > 0.01


def test_matrices_of_one_shape_do_not_touch_each_other() -> None:
    generator = torch.Generator().manual_seed(1)
    matrices = torch.randn(3, 6, 10, generator=generator)
    together = orthogonalised(matrices)
    for matrix, result in zip(matrices, together, strict=True):
        torch.testing.assert_close(orthogonalised(matrix[None])[0], result)
        values = torch.linalg.svdvals(result)
        assert float(values.min()) > 0.6 and float(values.max()) < 1.3
    assert not orthogonalised(torch.zeros(1, 4, 4)).any()


def test_a_parameter_without_a_gradient_stays() -> None:
    still, moving = torch.nn.Parameter(torch.ones(4, 4)), torch.nn.Parameter(torch.ones(4, 4))
    moving.grad = torch.eye(4)
    Muon([still, moving], lr=0.1).step()
    assert torch.equal(still, torch.ones(4, 4))
    assert not torch.equal(moving, torch.ones(4, 4))
