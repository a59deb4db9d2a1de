"""The training step as one graph: data on the device, a batch a row of numbers, a step one launch.

The structures lie on the device (resident.py). Once per epoch the host brings the order of the structures,
and the learning rate and the counts of every step, and reads sums back; between, it only says which graph
to launch. A step gathers its batch into one of a few shapes, filled up with atoms and pairs that count
exactly nothing: their structure has no part in the loss, their pairs have no weight, and means are over
the true counts, which are numbers on the device. It evaluates the network, differentiates the loss, clips
at the running median of the gradient's norm, takes a step of the optimizer, moves the average and adds to the sums
of the contribution weights, without synchronizing with the host. A loss that is no longer finite cannot stop it:
its number is recorded, and the loop reports it at the end of the epoch.

On a GPU this is captured once per shape, after runs on a side stream whose effects are undone, and then
replayed; on a CPU, or where the capture fails, the same function is called. Of several processes each
captures for itself; the sum over them lies between two graphs, so that it may be of any kind (NCCL, or
Gloo for processes that share a GPU) and their batches need not have one shape.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scschnet import ops
from scschnet.data import Split, StructureSet
from scschnet.evaluate import Predictions
from scschnet.nn import SchNet
from scschnet.runs.config import TrainConfig
from scschnet.train.epoch_buffers import EpochBuffers, Failure
from scschnet.train.loss import Loss
from scschnet.train.processes import Processes
from scschnet.train.resident import Places, ResidentData, ResidentPredictor, Shape
from scschnet.train.state import TrainingState

WARM_UP = 2  # runs before a capture: libraries make their handles and choose their algorithms


class Stage(NamedTuple):
    """Part of a step; one that is not on the device alone is left out of graphs."""

    run: Callable[[], None]
    can_be_captured: bool = True


class Program(NamedTuple):
    """What is called for a step of a shape, one after the other; `places` is read by replays."""

    places: Places
    calls: list[Callable[[], None]]


def resident_step(
    config: TrainConfig,
    state: TrainingState,
    structures: StructureSet,
    split: Split,
    loss: Loss,
    processes: Processes,
    log: Callable[[str], None],
) -> "ResidentStep | None":
    """The step on resident data where it is asked for and possible; otherwise None, after the reason is logged.

    Args:
        config: options of the run.
        state: of the training, restored if it is resumed.
        structures: the whole set.
        split: the structures that are trained on, and those for validation.
        loss: what is minimized.
        processes: this process and its group.
        log: shows a line to the user.
    """
    device = torch.device(processes.device)
    if config.step == "eager" or (config.step == "auto" and device.type == "cpu"):
        return None
    if config.filters == "dense":
        reason = "there is no such step with dense filters"
    elif config.heads:
        reason = "there is no such step with properties, whose layers are evaluated block by block"
    elif not ops.runs_on(device):
        reason = f"the operators were not built for {device.type}"
    else:
        try:
            return ResidentStep(config, state, structures, split, loss, processes, log)
        except torch.OutOfMemoryError as error:
            reason = _first_line(error)
    log(f"note: steps are launched operation by operation: {reason}")
    return None


class ResidentStep:
    """Takes the steps of a training on resident data, each one launch where the device is a GPU.

    Args: as of `resident_step`.

    Raises:
        torch.OutOfMemoryError: if the data do not fit.
    """

    def __init__(
        self,
        config: TrainConfig,
        state: TrainingState,
        structures: StructureSet,
        split: Split,
        loss: Loss,
        processes: Processes,
        log: Callable[[str], None],
    ) -> None:
        self.config, self.state, self.processes, self.log = config, state, processes, log
        self.loss = loss
        train = split.train
        self.device = torch.device(processes.device)
        self.captures = self.device.type == "cuda"
        self._reason = ""  # why a capture failed, until it is logged
        self.data = ResidentData(structures, train, config.cutoff, self.device, loss.names)
        self._number_of = np.zeros(len(structures), np.int64)
        self._number_of[train] = np.arange(len(train))
        size = min(config.batch_size, len(train))
        n_steps = -(-len(train) // config.batch_size)
        self.buffers = EpochBuffers(
            state, n_steps, len(processes.share(np.arange(size))) + 1, self.device
        )
        self._shapes: list[Shape] = []
        self._programs: dict[Shape, Program] = {}
        self._pool: Any = None
        self._side: Any = None
        self._nodes = state.model.table_nodes(self.data.largest_distance)
        _prepare_optimizer(state, self.buffers.rate)
        shared = processes.share(split.val)
        self._validation = ResidentPredictor(structures, shared, config.cutoff, self.device)
        self._message = torch.zeros(0)
        if processes.size > 1:
            self._message = torch.cat([t.reshape(-1).double() for t in self._to_sum()])

    def begin_epoch(self, batches: Sequence[NDArray[np.int64]], rates: Sequence[float]) -> None:
        """Bring an epoch to the device.

        Args:
            batches: structures of every step, of all processes together.
            rates: learning rate of every step.
        """
        empty, width = len(self.data), self.buffers.order.shape[1]
        order = np.full((len(batches), width), empty)
        plan = np.zeros((len(batches), 3))
        self._shapes = []
        for k, (batch, rate) in enumerate(zip(batches, rates, strict=True)):
            chosen = self._number_of[batch]
            mine = self.processes.share(chosen)
            order[k, : len(mine)] = mine
            plan[k] = rate, len(chosen), self.data.sizes[chosen].sum()
            self._shapes.append(self.data.shape_of(mine))
        self.buffers.begin(self.state, torch.from_numpy(order), torch.from_numpy(plan))
        if self.state.model.filter_step != self._nodes.grid.step:  # tables of another size
            self._programs.clear()
            self._nodes = self.state.model.table_nodes(self.data.largest_distance)

    def run(self) -> None:
        """Take the next step; on a GPU it may still be under way when this returns."""
        state = self.state
        shape = self._shapes[state.step]
        if shape not in self._programs:
            self._programs[shape] = self._program(Places(shape, self.device))
        for call in self._programs[shape].calls:
            call()
        if self._reason:  # a kernel that cannot run at all would have failed again
            self.log(f"note: steps are launched operation by operation: {self._reason}")
            self._reason = ""
        state.step += 1
        state.total_steps += 1
        state.contributions.n += 1

    def read_back(self) -> Failure | None:
        """Bring sums and norms into the state, waiting for the steps under way.

        Returns:
            The first step since `begin_epoch` whose numbers were not finite, if there was one.
        """
        # Replays change parameters behind torch's back, and models keep tables by their versions.
        torch.autograd.graph.increment_version(
            [*self.state.parameters, *self.state.averaged_parameters]
        )
        return self.buffers.read_into(self.state)

    def predict(self, model: SchNet) -> Predictions:
        """What a model says of this process's validation structures; nothing is collated again.

        Args:
            model: on the device of the data, of the cutoff that is trained.
        """
        return self._validation.predict(model, **self.loss.derivatives)

    def describe(self) -> str:
        """What lies on the device, in a line."""
        text = f"{len(self.data)} structures resident, {self.data.n_bytes / 1e6:.0f} MB"
        if not self.captures:
            return f"{text}; steps are not captured"
        reserved = torch.cuda.memory_reserved(self.device) / 1e9
        return (
            f"{text}; every step one of {len(self._programs)} captured graphs; "
            f"{reserved:.2f} GB of the GPU in use"
        )

    # ---- the step

    def differentiate(self, places: Places) -> None:
        """From the number of the step to loss, gradient and norms."""
        buffers, model = self.buffers, self.state.model
        buffers.begin_step()
        dtype = model.contribution_weights.dtype
        batch, labels = self.data.gather(buffers.order, buffers.step, places, dtype)
        result = model.evaluate_padded(batch, self._nodes, **self.loss.derivatives)
        loss = self.loss(result, labels, buffers.n_structures, buffers.n_atoms)
        self.state.differentiate(loss)
        buffers.loss.copy_(loss.detach())
        norms = result["correction_norms"]
        if ops.trains_on(self.data.device):
            ops.mean_norms(norms, batch.idx_m, len(batch.sizes), buffers.n_atoms, buffers.norms)
        else:
            counts = (
                batch.idx_m < len(batch.sizes)
            ) / buffers.n_atoms  # of the mean: padding counts nothing
            torch.mv(norms.double(), counts, out=buffers.norms)

    def update(self) -> None:
        """From loss, gradient and norms to new parameters, averages and sums."""
        config, state, buffers = self.config, self.state, self.buffers
        with torch.no_grad():
            norm = torch.linalg.vector_norm(state.gradient)
            buffers.record_step(norm, state.model.contribution_weights, config.clip, config.ema)
            if config.clip > 0:
                state.gradient.mul_(buffers.factors[0])
            state.optimizer.step()
            if state.averaged is not state.model:
                change = torch._foreach_sub(state.parameters, state.averaged_parameters)
                torch._foreach_mul_(change, buffers.factors[1].to(change[0].dtype))
                torch._foreach_add_(state.averaged_parameters, change)

    def _whole(self, places: Places) -> None:
        self.differentiate(places)
        self.update()

    def _pack(self, places: Places) -> None:
        self.differentiate(places)
        torch.cat([t.reshape(-1).double() for t in self._to_sum()], out=self._message)

    def _sum(self) -> None:
        self.processes.all_reduce_(self._message)

    def _unpack(self) -> None:
        parts = self._message.split([t.numel() for t in self._to_sum()])
        for tensor, part in zip(self._to_sum(), parts, strict=True):
            tensor.copy_(part.view_as(tensor))
        self.update()

    def _to_sum(self) -> list[Tensor]:
        return [self.state.gradient, self.buffers.loss, self.buffers.norms]

    # ---- programs

    def _program(self, places: Places) -> Program:
        stages = [Stage(lambda: self._whole(places))]
        if self.processes.size > 1:
            stages = [
                Stage(lambda: self._pack(places)),
                Stage(self._sum, can_be_captured=False),
                Stage(self._unpack),
            ]
        if self.captures:
            try:
                return Program(places, self._captured(stages))
            except RuntimeError as error:
                self.captures = False
                self._programs.clear()
                self._reason = _first_line(error)
        return Program(places, [stage.run for stage in stages])

    def _captured(self, stages: list[Stage]) -> list[Callable[[], None]]:
        """Graphs of the stages. What runs before the capture is undone, also if that fails."""
        changing = self._changing()
        before = [tensor.clone() for tensor in changing]
        if self._side is None:
            self._side, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        main, side = torch.cuda.current_stream(), self._side
        side.wait_stream(main)
        try:
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    for stage in stages:
                        if stage.can_be_captured:  # others may wait for processes that do not
                            stage.run()
                    _copy(changing, before)
            main.wait_stream(side)
            with torch.cuda.stream(main):  # restores it: a capture that fails does not
                return [self._graph_of(stage) for stage in stages]
        finally:
            main.wait_stream(side)
            _copy(changing, before)

    def _graph_of(self, stage: Stage) -> Callable[[], None]:
        if not stage.can_be_captured:
            return stage.run
        graph = torch.cuda.CUDAGraph()
        # Graphs run one after the other and leave nothing in their memory, so they share it. Other threads
        # (NCCL has one that watches) may call what the capturing thread must not.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._side, capture_error_mode="thread_local"
        ):
            stage.run()
        return graph.replay

    def _changing(self) -> list[Tensor]:
        """Everything that a step changes for the next one."""
        state = self.state
        tensors = [state.flat.detach(), *self.buffers.changing()]
        if state.averaged is not state.model:
            tensors += state.averaged_parameters
        for of_parameter in state.optimizer.state.values():
            tensors += [value for value in of_parameter.values() if isinstance(value, Tensor)]
        return tensors


def _prepare_optimizer(state: TrainingState, rate: Tensor) -> None:
    """Let the optimizer read its rate from the device, and make its state now: a graph must find it there."""
    optimizer = state.optimizer
    for group in optimizer.param_groups:
        group["lr"], group["capturable"] = rate, True
    optimizer._warned_capturable_if_run_uncaptured = True  # runs before a capture are on purpose
    if not optimizer.state:
        state.gradient.zero_()
        optimizer.step()  # with gradient and rate zero: nothing moves
        for of_parameter in optimizer.state.values():
            for value in of_parameter.values():
                value.zero_()


def _copy(to: list[Tensor], source: list[Tensor]) -> None:
    for one, other in zip(to, source, strict=True):
        one.copy_(other)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
