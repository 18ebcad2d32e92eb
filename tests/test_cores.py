from __future__ import annotations

import pytest
import torch

from circuits.machine import each_block, workers_for

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_and_each_block_has_its_share_of_threads():
    found = list(each_block(lambda block: (block, torch.get_num_threads()), [3, 1, 2], CPU))
    assert found == [(3, 1), (1, 1), (2, 1)]
    assert torch.get_num_threads() == 2


def test_new_threads_have_all_cores_again_afterwards():
    from threading import Thread

    list(each_block(lambda block: block, [1, 2, 3], CPU))
    seen: list[int] = []
    thread = Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [2]


def test_an_error_in_a_block_is_raised():
    def work(block: int) -> int:
        raise ValueError(f"block {block}")

    with pytest.raises(ValueError, match="block 1"):
        list(each_block(work, [1, 2], CPU))


def test_no_block_keeps_a_graph_for_autograd():
    weight = torch.ones(1, requires_grad=True)
    assert not any(r.requires_grad for r in each_block(lambda b: weight * b, [1, 2], CPU))


def test_other_devices_work_on_one_block_at_a_time():
    assert workers_for(CPU) == 2
    assert workers_for(torch.device("meta")) == 1
