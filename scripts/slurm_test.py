"""Runs a sweep on a real Slurm of one node: a job that fails, one that is requeued, one that reaches its time limit.

    python scripts/slurm_test.py

Starts munged, slurmctld and slurmd in a temporary folder, on 127.0.0.1, and ends them. Needs root and the programs of
the Debian packages slurm-wlm and munge.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.kill_test import differences, write_patches

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue")

SETTINGS = (
    *("data.root=patches", "model.weights=none", "model.encoder=tu-test_efficientnet", "data.batch_size=4"),
    *("data.num_workers=0", "engine.epochs=3", "engine.device=cpu", "tracker=none"),
)

_CONFIG = """\
ClusterName=test
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=5
MessageTimeout=60
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
MpiDefault=none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=1000
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def find_obstacle() -> str:
    """Returns why Slurm cannot be started here; empty if it can."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"{', '.join(missing)} not installed"
    return "" if os.geteuid() == 0 else "Slurm's daemons need root"


@contextmanager
def start_slurm() -> Iterator[dict[str, str]]:
    """Starts the daemons of a Slurm of one node; yields the environment variables of its commands."""
    # Slurm's sockets lie in this folder, and their paths may have 108 characters.
    with tempfile.TemporaryDirectory(prefix="slurm_", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # munged refuses a folder in which others could not reach its socket
        for inner in ("state", "spool"):
            (folder / inner).mkdir()
        config = folder / "slurm.conf"
        ports = [_find_port(), _find_port()]
        host = socket.gethostname().partition(".")[0]
        config.write_text(_CONFIG.format(folder=folder, host=host, ports=ports, cores=os.cpu_count()))
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        environment = {**os.environ, "SLURM_CONF": str(config)}
        munge = {option: folder / f"munge.{option}" for option in ("socket", "log", "seed", "pid")}
        command = [
            "munged",
            "--force",
            f"--key-file={key}",
            f"--socket={munge['socket']}",
            f"--log-file={munge['log']}",
        ]
        command += [f"--seed-file={munge['seed']}", f"--pid-file={munge['pid']}"]
        for words, pid_file in (
            (command, munge["pid"]),
            (["slurmctld", "-c", "-f", str(config)], folder / "slurmctld.pid"),
            (["slurmd", "-f", str(config)], folder / "slurmd.pid"),
        ):
            subprocess.run(words, check=True, env=environment, capture_output=True)
            stack.callback(_stop_daemon, pid_file)
        wait_for(lambda: b"idle" in subprocess.run(["sinfo"], env=environment, capture_output=True, check=False).stdout)
        yield environment


def _find_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _stop_daemon(pid_file: Path) -> None:
    with suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Waits until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s")
        time.sleep(0.1)


def main() -> None:
    """Compares sweeps run by Slurm, requeued and stopped at their time limit, with one that nothing disturbed."""
    if obstacle := find_obstacle():
        sys.exit(obstacle)
    with tempfile.TemporaryDirectory() as name, start_slurm() as environment:
        cwd = Path(name)
        write_patches(cwd / "patches")

        def run(*words: object) -> str:
            command = [str(word) for word in words]
            result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
            return result.stdout + result.stderr

        def train(*words: str) -> str:
            return run(sys.executable, "-m", "fireseg.train", "-m", *SETTINGS, *words)

        def drain(array: str) -> int:
            """Waits for the end of an array; begins at once what Slurm would only begin two minutes after a requeue."""
            num_requeued = 0
            while queue := run("squeue", "--noheader", "--job", array, "--format", "%i %r"):
                for line in queue.splitlines():
                    task, _, reason = line.partition(" ")
                    if reason == "BeginTime":
                        num_requeued += 1
                        run("scontrol", "update", f"JobId={task}", "StartTime=now")
                time.sleep(1)
            return num_requeued

        print(train("seed=0,1", "hydra.sweep.dir=undisturbed").splitlines()[-6:])
        start = time.perf_counter()
        output = train("seed=0,1", "data.root=patches,nowhere", "hydra.sweep.dir=fires", "--engine", "slurm")
        print(output)
        array = output.partition(" as array ")[2].partition(";")[0]
        wait_for(lambda: any(cwd.glob("fires/0_*/checkpoints/last.pt")), 300)
        print(run("scontrol", "requeue", f"{array}_0") or "job 0 was requeued after its first epoch")
        print(f"{drain(array)} requeued, {time.perf_counter() - start:.0f} s")
        print(run(sys.executable, "-m", "fireseg.sweep", "status", "fires"))
        words = ("seed=0", "hydra.sweep.dir=short", "--engine", "slurm", "--sbatch-options=--time=1")
        array = train(*words).partition(" as array ")[2].partition(";")[0]
        print(f"time limit of a minute: {drain(array)} requeued")
        print(run(sys.executable, "-m", "fireseg.sweep", "status", "short"))
        undisturbed = sorted(cwd.glob("undisturbed/*/config.json"))
        for path, other in (("fires/0_*", 0), ("fires/1_*", 1), ("short/0_*", 0)):
            (folder,) = cwd.glob(path)
            different = differences(folder, undisturbed[other].parent)
            print(f"{folder.relative_to(cwd)}: {different or 'equal to the undisturbed run'}")
            if different:
                sys.exit(1)


if __name__ == "__main__":
    main()
