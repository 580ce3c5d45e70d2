from __future__ import annotations

from stackrt import skus


def test_a_gpu_has_the_figures_of_its_exact_name() -> None:
    assert skus.of("NVIDIA H100 80GB HBM3").all_reduce_gb_per_s == 460
    for other in ("NVIDIA GH200 480GB", "NVIDIA H200 NVL", "NVIDIA H100 80GB HBM3 MIG 1g.10gb"):
        assert skus.of(other) == skus.Sku(other)


def test_every_figure_is_a_number_above_0_and_no_gpu_is_there_twice() -> None:
    names = [sku.name for sku in skus.table()]
    assert len(names) == len(set(names))
    for sku in skus.table():
        assert sku.host_gb_per_s > 0
        assert all(value >= 0 for name, value in vars(sku).items() if name != "name")
        assert bool(sku.all_reduce_gb_per_s) == bool(sku.all_reduce_gpus) == bool(sku.all_reduce_gib)
