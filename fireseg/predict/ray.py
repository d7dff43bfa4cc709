"""Workers that map scenes in a Ray cluster."""

from __future__ import annotations

import sys
import time
from typing import Any

from fireseg.predict.workers import POLL_S, Answer, SceneWorker
from fireseg.tiles.products import Scene


class RayPool:
    """Actors of the connected Ray cluster, each of which keeps its model and its GPU.

    They are not stateless tasks: a process that Ray uses again for another task may get another GPU, and torch cannot
    change it. New nodes get actors of their own, and the actors of a lost node are replaced elsewhere.

    Args:
        worker: The worker; copied to each actor.
        num_cores: CPUs of an actor.
        num_gpus: GPUs of an actor.
    """

    def __init__(self, worker: SceneWorker, num_cores: int, num_gpus: float) -> None:
        import ray

        self._worker, self._num_cores, self._num_gpus = worker, num_cores, num_gpus
        # A lost scene is tried again by the command, which counts the tries.
        actor: Any = ray.remote(_Actor)
        self._class = actor.options(num_cpus=num_cores, num_gpus=num_gpus, max_restarts=0, max_task_retries=0)
        self._actors: dict[int, Any] = {}
        self._references: dict[Any, int] = {}
        self._number = 0

    def count_room(self) -> int:
        """Returns the number of actors for which the nodes are large enough."""
        import ray

        # By node: two nodes with one free core each have no room for a worker of two cores.
        resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return sum(
            min(
                int(each.get("CPU", 0) / self._num_cores),
                int(each.get("GPU", 0) / self._num_gpus + 1e-6) if self._num_gpus else sys.maxsize,
            )
            for each in resources
        )

    def start(self) -> int:
        """Starts an actor and returns its number; Ray begins it when there is a free place."""
        self._number += 1
        actor = self._actors[self._number] = self._class.remote(self._worker)
        self._references[actor.load.remote()] = self._number
        return self._number

    def submit(self, worker: int, scene: Scene) -> bool:
        """Passes a scene to an actor; returns False if it was lost before."""
        import ray
        from ray.exceptions import RayError

        actor = self._actors[worker]
        try:
            ray.get(actor.load.remote())  # at once, unless the actor was lost with its node
        except RayError:
            del self._actors[worker]
            return False
        self._references[actor.map_scene.remote(scene)] = worker
        return True

    def receive(self) -> list[Answer]:
        """Returns the answers of actors, and which are lost."""
        import ray
        from ray.exceptions import RayError

        if not self._references:
            time.sleep(POLL_S)
            return []
        answers = []
        done, _ = ray.wait(list(self._references), num_returns=1, timeout=POLL_S)
        for reference in done:
            number = self._references.pop(reference)
            try:
                answers.append(Answer(number, *ray.get(reference)))
            except RayError as error:
                ray.kill(self._actors.pop(number))
                reason = " ".join(str(error).split())[:300]
                answers.append(Answer(number, "lost", [f"its worker was lost ({type(error).__name__}: {reason})"]))
        return answers

    def stop(self) -> None:
        """Kills the actors."""
        import ray

        for actor in self._actors.values():
            ray.kill(actor)
        self._actors.clear()


class _Actor:
    def __init__(self, worker: SceneWorker) -> None:
        self._worker = worker

    def load(self) -> Any:
        return self._worker.load()

    def map_scene(self, scene: Scene) -> Any:
        return self._worker.map_scene(scene)
