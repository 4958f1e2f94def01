"""A job of a multirun is composed once, though Hydra's sweeper asks for it and then the launcher."""

from __future__ import annotations

from hydra import initialize_config_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from optsweep.config.compose import register
from optsweep.launcher import ComposedOnce


def test_a_job_that_is_asked_for_again_is_the_same_and_another_is_another() -> None:
    register()
    GlobalHydra.instance().clear()
    with initialize_config_module("optsweep.conf", version_base="1.3"):
        path = GlobalHydra.instance().config_loader().get_search_path()
    once, plain = ComposedOnce(path), ConfigLoaderImpl(path)
    multirun = plain.load_configuration("config", ["sweep.name=any"], RunMode.MULTIRUN)
    jobs = [["sweep.name=any", f"optimizer={name}", "schedule=wsd"] for name in ("soap", "lion")]
    configs = [once.load_sweep_config(multirun, job) for job in jobs]
    assert all(once.load_sweep_config(multirun, list(job)) is held for job, held in zip(jobs, configs, strict=True))
    assert configs == [plain.load_sweep_config(multirun, job) for job in jobs]
    assert [config.optimizer.name for config in configs] == ["soap", "lion"]
