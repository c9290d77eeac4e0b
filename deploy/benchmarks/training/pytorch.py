"""PyTorch's side: `python -m benchmarks.training.pytorch CASE` in an environment with PyTorch, see `worker`.

Written as PyTorch's own guides advise for a CPU: channels last, autocast for bfloat16, fused Adam, `DataLoader`.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.training import cases, weights
from benchmarks.training.cases import Case
from benchmarks.training.networks import NETWORKS, BinaryConv, Head
from benchmarks.training.views import Views, augment
from benchmarks.training.worker import matrix_flops_per_s, matrix_shape, serve, timed_steps


def guided_distillation(teacher: Tensor, student: Tensor) -> Tensor:
    """S2-BNN's loss (arXiv 2102.08946, eq. 5): cross-entropy of softmax(embedding / T), both [B, D] float32."""
    target = F.softmax(F.normalize(teacher, dim=1) / cases.TEMPERATURE, dim=1)
    return -(target * F.log_softmax(F.normalize(student, dim=1) / cases.TEMPERATURE, dim=1)).sum(dim=1).mean()


class Side:
    """A case in PyTorch."""

    def __init__(self, case: Case) -> None:
        self._case = case
        torch.manual_seed(case.seed)
        self._student = NETWORKS[case.network](case.image_size, **case.sizes)
        self._head = Head(self._student.features, cases.EMBEDDING_WIDTH)
        self._teacher = NETWORKS[cases.TEACHER](case.image_size, **cases.TEACHER_SIZES)
        self._teacher_head = Head(self._teacher.features, cases.EMBEDDING_WIDTH)
        self._parts = {
            "student": self._student,
            "head": self._head,
            "teacher": self._teacher,
            "teacher_head": self._teacher_head,
        }
        for part in self._parts.values():
            part.to(memory_format=torch.channels_last)
        for part in (self._teacher, self._teacher_head):
            part.eval().requires_grad_(False)
        self._latent = [module.weight for module in self._student.modules() if isinstance(module, BinaryConv)]
        trained = [p for part in (self._student, self._head) for p in part.parameters() if p.requires_grad]
        self._optimizer = torch.optim.Adam(trained, lr=cases.LEARNING_RATE, eps=cases.ADAM_EPSILON, fused=True)
        pixels = np.random.default_rng(case.seed).integers(
            0, 256, (case.images, case.image_size, case.image_size, 3), np.uint8
        )
        self._views = Views(pixels, case.batch_size, case.image_size, cases.MEAN, cases.STD, case.seed)
        self._stream = iter(self._views.loader())

    def _losses(self, views: Tensor, autocast: bool) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
            with torch.no_grad():
                target = self._teacher_head(self._teacher(views))
            embedding = self._head(self._student(views))
        target, embedding = target.float(), embedding.float()
        loss = guided_distillation(target, embedding)
        with torch.no_grad():
            gap = loss - guided_distillation(target, target)
        return loss, gap

    def _train_by(self, views: Tensor) -> float:
        loss, gap = self._losses(views, self._case.precision == cases.BFLOAT16)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        with torch.no_grad():
            torch._foreach_clamp_min_(self._latent, -1.0)
            torch._foreach_clamp_max_(self._latent, 1.0)
        gap.item()
        return loss.item()

    def outputs(self, folder: str) -> dict[str, Any]:
        """Takes over weights and images of the other side; writes what they give here, computed in float32."""
        with np.load(Path(folder, "weights.npz")) as arrays:
            for name, part in self._parts.items():
                weights.load(part, arrays, name)
        with np.load(Path(folder, "images.npz")) as found:
            images, numbers, view = (found[name] for name in ("images", "numbers", "view"))
        made = augment(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(numbers), self._case.image_size)
        own_view = self._views.normalised(made)
        views = torch.from_numpy(view).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        flops = {}
        with torch.no_grad():
            for pair in (("student", "head"), ("teacher", "teacher_head")):
                x = views
                for name in pair:
                    with FlopCounterMode(display=False) as counter:
                        x = self._parts[name](x)
                    flops[name] = counter.get_total_flops() / len(images)
        with FlopCounterMode(display=False) as counter:
            loss, _ = self._losses(views, autocast=False)
            loss.backward()
        own = {n: g for name in ("student", "head") for n, g in weights.gradients(self._parts[name], name).items()}
        self._optimizer.zero_grad()
        np.savez(Path(folder, "pytorch.npz"), **own)
        np.save(Path(folder, "view.npy"), own_view.permute(0, 2, 3, 1).numpy())
        return {
            "loss": loss.item(),
            "forward_flops": flops,
            "step_flops": counter.get_total_flops() / len(images),
        }

    def window(self, steps: int) -> dict[str, Any]:
        """See `worker.timed_steps`."""
        return timed_steps(self._stream, self._train_by, steps)

    def matrix_rate(self) -> dict[str, float]:
        """See `worker.matrix_flops_per_s`, by precision."""
        left, right = (torch.randn(matrix_shape()) for _ in range(2))
        rates = {}
        for precision in cases.PRECISIONS:
            kind = getattr(torch, precision)
            a, b = left.to(kind), right.to(kind)
            rates[precision] = matrix_flops_per_s(lambda a=a, b=b: a @ b)  # type: ignore[misc]
        return rates


def main() -> None:
    """Serves the case of the command line."""
    case = Case(**json.loads(sys.argv[1]))
    torch.set_num_threads(case.threads)
    side = Side(case)
    serve(
        {
            "versions": lambda: {"torch": torch.__version__},
            "outputs": side.outputs,
            "window": side.window,
            "matrix_rate": side.matrix_rate,
        }
    )


if __name__ == "__main__":
    main()
