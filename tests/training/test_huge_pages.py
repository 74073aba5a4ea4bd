"""Values in large pages are copies like any other."""

import gc
import mmap

import pytest
import torch

from rarenodes.training import huge_pages
from rarenodes.training.huge_pages import PAGE, in_huge_pages


@pytest.mark.parametrize("smallest", [0, 10**9])
def test_a_copy_has_the_values_and_is_its_own(monkeypatch, smallest):
    monkeypatch.setattr(huge_pages, "FROM_BYTES", smallest)
    values = torch.randn(3, 50, 7).transpose(1, 2)
    copy = in_huge_pages(values)
    assert copy.is_contiguous()
    assert torch.equal(copy, values)
    if smallest == 0:
        assert copy.data_ptr() % PAGE == 0
    copy += 1
    assert not torch.equal(copy, values)


def test_the_memory_lives_as_long_as_a_view_of_it(monkeypatch):
    monkeypatch.setattr(huge_pages, "FROM_BYTES", 0)
    view = in_huge_pages(torch.ones(1000, 100))[7]
    gc.collect()
    others = [in_huge_pages(torch.zeros(1000, 100)) for _ in range(4)]
    assert view.sum() == 100
    assert all((other == 0).all() for other in others)


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="a system without large pages")
def test_a_system_that_refuses_them_still_copies(monkeypatch):
    monkeypatch.setattr(huge_pages, "FROM_BYTES", 0)
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", 9999)  # no advice that a kernel knows
    assert in_huge_pages(torch.ones(4, 5)).sum() == 20
