"""Processes that are killed: programs, runners, pos-job, pos-cli, posd; idle, in
a call, in every phase of a checkpoint and of a restore. What can go on goes on
with the right result, what cannot fails once and clearly, and nothing is left.
"""
import contextlib
import os
import signal
import sys
import time

from harness import (LONG, CliError, Failure, Skip, descendants, expect,
                     expect_equal, main, needs_criu, needs_program, needs_root,
                     read_text, send_signal, spawn, wait_until)
from node import BUILD, NESTED
from programs import Program, Undisturbed, checkpoint, expect_whole, start

ROUNDS = 30 if LONG else 5
CHECKPOINT_PHASES = ("preflight", "quiesce", "detach", "copy", "host memory",
                     "seal")
RESTORE_PHASES = ("preflight", "load", "admit")
# How long restores are killed at most, in one test; the harness ends it at 110.
RESTORES_S = 300 if LONG else 60


def prepare(test, name, target_s=1.5, iterations=None, **kwargs):
    needs_root()
    node = test.node(**kwargs)
    needs_criu(node)
    program = Program(test, name)
    return node, program, Undisturbed(node, program, target_s, iterations)


def processes(name):
    return [pid for pid, n in descendants().items() if n.startswith(name)]


def session_pid(node, job):
    """The program, as posd sees it."""
    return wait_until(lambda: (node.job(job) or {}).get("pid"),
                      f"a process of {job}")


def busy_runner(node, job):
    """The runner that serves the job: the one that has threads for it."""
    idle = set(processes("pos-runner"))
    expect(idle, "no runner")
    # The warm one has no descriptor of the job's host file.
    for pid in idle:
        links = []
        with contextlib.suppress(OSError):  # it has ended
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):  # closed meanwhile
                    links.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        if any(f"-{job}-" in link for link in links):
            return pid
    raise Failure(f"no runner of {job} among {idle}")


@contextlib.contextmanager
def starved(pid):
    """All threads of `pid` share one processor with somebody who wants all of it
    and comes first. (Stopping them with a signal would do, but it would reach
    CRIU's work, too, and CRIU does not stand that.)"""
    cpu = min(os.sched_getaffinity(0))
    hog = spawn([sys.executable, "-c",
                 f"import os; os.sched_setaffinity(0, [{cpu}])\n"
                 "while os.getppid() != 1: pass"])
    everywhere = os.sched_getaffinity(pid)

    def put(policy, cpus):
        """All threads: one that is made by one that was seen already inherits,
        so it is over when a list shows nobody new."""
        done = set()
        while True:
            try:
                threads = {int(t) for t in os.listdir(f"/proc/{pid}/task")}
            except FileNotFoundError:
                return
            if threads <= done:
                return
            for tid in threads - done:
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setscheduler(tid, policy, os.sched_param(0))
                    os.sched_setaffinity(tid, cpus)
            done |= threads
    try:
        put(os.SCHED_IDLE, [cpu])
        yield
    finally:
        hog.kill()
        hog.wait()
        put(os.SCHED_OTHER, everywhere)


def still_works(node, program, undisturbed):
    """After all that: a new job runs, is checkpointed and restored."""
    job = start(node, program, undisturbed, 0.2)
    taken = checkpoint(node, job, "--stop")
    if taken is None:
        return
    restored = node.cli("restore", taken["image"])["job"]
    expect_whole(node, restored, taken["image"], undisturbed)
    node.cli("images", "rm", taken["image"])


def client_killed(test):
    """SIGKILL to the program: in a call, and in a checkpoint."""
    node, program, undisturbed = prepare(test, "host_threads", 2.5)
    for i in range(ROUNDS):
        job = start(node, program, undisturbed, 0.02, times=20)
        pid = session_pid(node, job)
        attempt = None
        if i % 2:
            attempt = node.begin("checkpoint", job)
            time.sleep(test.random.random() * 0.2)
        send_signal(pid, signal.SIGKILL)
        if attempt is not None:
            try:
                node.cli("images", "rm", attempt.result()["image"])
            except CliError as error:
                expect(error.code, f"no code: {error}")
        expect_equal(node.wait(job), 128 + 9, "exit status after SIGKILL")
    test.check_idle(node)
    still_works(node, program, undisturbed)
    test.check_idle(node)


def runner_killed(test):
    """The session is lost: its program gets an error, at once and for good.
    Killed while nothing goes on, at some instant of a checkpoint, and about
    when the program is asked to detach."""
    node, program, undisturbed = prepare(test, "vector_add", iterations=20)
    for i in range(2 * ROUNDS):
        job = start(node, program, undisturbed, 0.1, times=500)
        runner = busy_runner(node, job)
        attempt = None
        if i % 4:
            attempt = node.begin("checkpoint", job, as_json=False)
        if i % 4 == 1:
            time.sleep(test.random.random() * 0.2)
        elif i % 4:
            attempt.wait_phase(CHECKPOINT_PHASES, "detach")
        send_signal(runner, signal.SIGKILL)
        if attempt is not None:
            attempt.status()
            for image in node.images():
                node.cli("images", "rm", image)
        expect_lost(node, job)
    test.check_idle(node)
    for runner in processes("pos-runner"):  # the warm one
        send_signal(runner, signal.SIGKILL)
    still_works(node, program, Undisturbed(node, program))
    test.check_idle(node)


def expect_lost(node, job):
    """The job has ended because its session had."""
    status = node.wait(job, 30)
    output = node.output(job)
    expect_equal(status, 1, "exit status")
    expect(b"FAIL: " in output and b"cudaError" in output,
           f"no error of CUDA: {output[-300:]!r}")


def detached_late(test):
    """The program gets hardly any processor when it is to detach, and posd gives
    up: it is called back when it has detached at last."""
    node, program, undisturbed = prepare(
        test, "vector_add", 2.5, options={"quiesce.detach_ms": "1ms"})
    job = start(node, program, undisturbed, 0.02)
    pid = session_pid(node, job)
    late = 0
    for _ in range(4 * ROUNDS):
        with starved(pid):
            late += not_detached(node, job)
        before = node.calls(job)
        if before is None or not node.wait_calls(job, before + 1, 20):
            break
    node.finish_job(job, undisturbed.output)
    called_back = read_text(node.log).count("late was called back")
    test.note(f"{late} late, {called_back} called back")
    expect(late > 0, "no detach was late")
    test.check_idle(node)


def not_detached(node, job):
    """Whether a checkpoint failed because its client did not detach."""
    try:
        node.cli("images", "rm", node.cli("checkpoint", job)["image"])
    except CliError as error:
        if node.state_of(job) == "running":
            # CRIU, too, gives a process that gets no processor time up.
            starved_there = (error.code == "CRIU" and
                             "Timeout reached" in str(error))
            expect(starved_there or
                   error.code in ("TIMEOUT", "BUSY", "NOT_READY"), f"{error}")
        return "did not detach" in str(error)
    return False


def pos_job_killed(test):
    """The job ends with its pos-job; posd says so."""
    node, program, undisturbed = prepare(test, "vector_add")
    for i in range(ROUNDS):
        job = start(node, program, undisturbed, 0.1)
        attempt = None
        if i % 2:
            attempt = node.begin("checkpoint", job)
            time.sleep(test.random.random() * 0.2)
        for pid in processes("pos-job"):
            send_signal(pid, signal.SIGKILL)
        if attempt is not None:
            try:
                node.cli("images", "rm", attempt.result()["image"])
            except CliError as error:
                expect(error.code, f"no code: {error}")
        expect(node.wait(job, 30) != 0, "the job ended well without pos-job")
        expect(node.state_of(job) in ("failed", "exited"), "state")
    test.check_idle(node)
    still_works(node, program, undisturbed)
    test.check_idle(node)


def pos_cli_killed(test):
    """Whoever asked is gone: the checkpoint is undone or completed, the job goes
    on; a restore leaves a whole job or none."""
    node, program, undisturbed = prepare(test, "vector_add", 2.0)
    job = start(node, program, undisturbed, 0.05)
    cut = 0
    for i in range(ROUNDS):
        attempt = node.begin("checkpoint", job, as_json=False)
        if i % 2 and attempt.wait_phase(
                CHECKPOINT_PHASES, CHECKPOINT_PHASES[(i // 2) % len(CHECKPOINT_PHASES)]):
            cut += 1
        else:
            time.sleep(test.random.random() * 0.15)
        attempt.kill(signal.SIGKILL if i % 3 else signal.SIGINT)
        attempt.status()
        wait_until(lambda: node.state_of(job) != "checkpointing",
                   "the end of the checkpoint")
        if node.state_of(job) != "running":
            break
    node.finish_job(job, undisturbed.output)
    for image in node.images():
        node.verify(image)
        node.cli("images", "rm", image)
    test.note(f"{cut} checkpoints left in a phase")

    job = start(node, program, undisturbed, 0.3)
    taken = checkpoint(node, job, "--stop")
    expect(taken, "ended early")
    for i in range(ROUNDS):
        name = node.name()
        attempt = node.begin("restore", taken["image"], "--name", name,
                             as_json=False)
        if i % 2:
            attempt.wait_phase(
                RESTORE_PHASES, RESTORE_PHASES[(i // 2) % len(RESTORE_PHASES)])
        else:
            time.sleep(test.random.random() * 0.1)
        attempt.kill()
        attempt.status()
        wait_until(lambda: node.state_of(name) not in ("restoring", "starting"),
                   "the end of the restore")
        if node.job(name) is not None:
            expect_whole(node, name, taken["image"], undisturbed)
    node.cli("images", "rm", taken["image"])
    test.check_idle(node)


def wait_settled(node, job):
    """After a restart: the job runs or has ended."""
    wait_until(lambda: node.state_of(job) in (None, "running", "stopped",
                                              "exited", "failed"),
               f"{job} to be let go (is {node.state_of(job)})", 60)


def posd_killed_idle(test):
    """posd is killed and started again while jobs run; they never notice."""
    node, program, undisturbed = prepare(test, "vector_add", 2.5)
    iterations = None
    while iterations != undisturbed.iterations:  # both of the same length
        iterations = undisturbed.iterations
        jobs = [start(node, program, undisturbed, 0.02) for _ in range(2)]
    for _ in range(3):
        node.kill()
        node.start()
        for job in jobs:
            wait_settled(node, job)
        time.sleep(test.random.random() * 0.2)
    for job in jobs:
        node.finish_job(job, undisturbed.output)
    still_works(node, program, undisturbed)
    test.check_idle(node)


def posd_killed_in_checkpoint(test):
    """In each phase, and at random instants. The job goes on, or has ended with
    a whole image if that was asked for."""
    node, program, undisturbed = prepare(test, "vector_add", 3.0)
    job = start(node, program, undisturbed, 0.02)
    sealed = 0
    for i in range(ROUNDS + len(CHECKPOINT_PHASES)):
        attempt = node.begin("checkpoint", job, as_json=False)
        if i < len(CHECKPOINT_PHASES):
            attempt.wait_phase(CHECKPOINT_PHASES, CHECKPOINT_PHASES[i])
        else:
            time.sleep(test.random.random() * 0.2)
        node.kill()
        attempt.status()
        node.start()
        wait_settled(node, job)
        if node.state_of(job) != "running":
            break
    test.note(f"{i + 1} times")
    node.finish_job(job, undisturbed.output)
    for image in node.images():
        node.verify(image)
        sealed += 1
        restored = node.cli("restore", image, "--name", node.name())["job"]
        expect_whole(node, restored, image, undisturbed)
        node.cli("images", "rm", image)
    test.note(f"{sealed} images")
    test.check_idle(node)


def posd_killed_in_stop(test):
    """With --stop: the job either runs on or its image is whole, never neither
    and never both."""
    node, program, undisturbed = prepare(test, "vector_add", 1.2)
    outcomes = []
    for i in range(ROUNDS):
        job = start(node, program, undisturbed, 0.1)
        attempt = node.begin("checkpoint", "--stop", job, as_json=False)
        if i % 2:
            attempt.wait_phase(CHECKPOINT_PHASES,
                               ("seal", "copy", "host memory")[i // 2 % 3])
        else:
            time.sleep(test.random.random() * 0.25)
        node.kill()
        attempt.status()
        node.start()
        wait_settled(node, job)
        images = node.images()
        if images:
            outcomes.append("image")
            node.verify(images[0])
            wait_until(lambda: node.state_of(job) in (None, "stopped", "exited"),
                       "the stopped job to end")
            restored = node.cli("restore", images[0])["job"]
            expect_whole(node, restored, images[0], undisturbed)
            node.cli("images", "rm", images[0])
        else:
            outcomes.append("job")
            node.finish_job(job, undisturbed.output)
    test.note(" ".join(outcomes))
    test.check_idle(node)


def posd_killed_in_restore(test):
    """The job never ran and is gone, or runs to its end."""
    node, program, undisturbed = prepare(test, "vector_add", 1.2)
    job = start(node, program, undisturbed, 0.3)
    taken = checkpoint(node, job, "--stop")
    expect(taken, "ended early")
    outcomes = []
    for i in range(ROUNDS + len(RESTORE_PHASES)):
        name = node.name()
        attempt = node.begin("restore", taken["image"], "--name", name,
                             as_json=False)
        if i < len(RESTORE_PHASES):
            attempt.wait_phase(RESTORE_PHASES, RESTORE_PHASES[i])
        else:
            time.sleep(test.random.random() * 0.2)
        node.kill()
        attempt.status()
        node.start()
        wait_settled(node, name)
        state = node.state_of(name)
        outcomes.append(state or "none")
        if state in ("running", "exited"):
            expect_whole(node, name, taken["image"], undisturbed)
    test.note(" ".join(outcomes))
    restored = node.cli("restore", taken["image"])["job"]
    expect_whole(node, restored, taken["image"], undisturbed)
    node.cli("images", "rm", taken["image"])
    test.check_idle(node)


def restore_loses(test, victim):
    """A part of a restore is killed, in each phase and at random instants: the
    restore fails at once, clearly, and nothing of it is left; or it was over,
    and the job ends as one does that loses that part. The image stays whole.
    Begun in the first phase, it is refused once at least; the others of so
    small a job may be over at once (hold_test holds them up). `victim`: name
    of the processes."""
    node, program, undisturbed = prepare(test, "vector_add", 1.2)
    job = start(node, program, undisturbed, 0.3)
    taken = checkpoint(node, job, "--stop")
    expect(taken, "ended early")
    # How long one takes here: the instants are drawn over that.
    began = time.monotonic()
    name = node.cli("restore", taken["image"])["job"]
    takes_s = time.monotonic() - began
    expect_whole(node, name, taken["image"], undisturbed)
    outcomes = []
    # Phases in which none was refused yet, in turn; then any instant.
    missing = list(RESTORE_PHASES)
    first = RESTORE_PHASES[0]
    rounds = 2 * ROUNDS + len(RESTORE_PHASES)
    until = time.monotonic() + RESTORES_S
    while missing or len(outcomes) < rounds:
        if time.monotonic() > until:
            break
        i = len(outcomes)
        phase = missing.pop(0) if missing else None
        name = node.name()
        began = time.monotonic()
        attempt = node.begin("restore", taken["image"], "--name", name,
                             as_json=False)
        if phase is not None:
            attempt.wait_phase(RESTORE_PHASES, phase)
        else:
            time.sleep(test.random.random() * takes_s)
        victims = wait_until(
            lambda: processes(victim) or (attempt.ended() and [0]),
            f"a {victim} to be killed")
        # All of them, or one: each dies with the others, or alone.
        if i % 2:
            victims = [test.random.choice(victims)]
        for pid in victims:
            if pid != 0:
                send_signal(pid, signal.SIGKILL)
        if attempt.status(60) == 0:
            outcomes.append("restored")
            if phase == first:
                missing.append(phase)
            status = node.wait(name, 30)
            if status == 0:  # the one that was killed was not its own
                expect_whole(node, name, taken["image"], undisturbed)
        else:
            outcomes.append("refused")
            expect(time.monotonic() - began < 20, "it took too long to fail")
            text = attempt.errors.decode().splitlines()
            expect(any(line.startswith("pos-cli: ") and
                       line.endswith((" is gone", " was killed"))
                       for line in text), f"unclear: {text!r}")
            expect_equal(node.job(name), None, "what is left of the job")
            expect(not os.path.exists(os.path.join(node.state, "jobs", name)),
                   "its directory is left")
        test.check_idle(node)
    test.note(" ".join(outcomes))
    expect(RESTORE_PHASES[0] not in missing, "no restore was refused")
    node.verify(taken["image"])
    restored = node.cli("restore", taken["image"])["job"]
    expect_whole(node, restored, taken["image"], undisturbed)
    node.cli("images", "rm", taken["image"])
    test.check_idle(node)


def pos_job_killed_in_restore(test):
    restore_loses(test, "pos-job")


def runner_killed_in_restore(test):
    restore_loses(test, "pos-runner")


def record_damaged(test):
    """posd finds a job's record damaged: the job runs on, nobody gets its name;
    once it has ended, what it left is set aside."""
    node, program, undisturbed = prepare(test, "vector_add", 2.5)
    job = start(node, program, undisturbed, 0.02)
    directory = os.path.join(node.state, "jobs", job)
    program_pid = session_pid(node, job)
    node.kill()
    with open(os.path.join(directory, "job.json"), "wb") as f:
        f.write(b'{"name": "' + job.encode())
    node.start()
    expect_equal(node.job(job), None, "a job without a record")
    node.cli_fails("run", "--detach", "--name", job, "--", "/bin/true",
                   code="EXISTS")
    expect(os.path.exists(f"/proc/{program_pid}"), "the program has ended")
    expect(os.path.exists(os.path.join(directory, "output.log")), "no output")
    wait_until(lambda: not os.path.exists(f"/proc/{program_pid}"),
               "the program's end", 60)
    expect_equal(node.output(job), undisturbed.output, "output")
    node.restart()
    expect(not os.path.exists(directory), "the directory is still there")
    with open(os.path.join(node.state, "unreadable", job, "output.log"),
              "rb") as f:
        expect_equal(f.read(), undisturbed.output, "output set aside")
    node.run("/bin/true", name=job)
    expect_equal(node.wait(job), 0, "exit status of a job of that name")
    test.check_idle(node)


def keep_jobs(test):
    """SIGTERM with --keep-jobs: the next posd takes the jobs over. Without: they
    are stopped."""
    node, program, undisturbed = prepare(test, "vector_add", 1.5,
                                         keep_jobs=True)
    job = start(node, program, undisturbed, 0.1)
    node.stop()
    node.start()
    wait_settled(node, job)
    node.finish_job(job, undisturbed.output)
    node.keep_jobs = False
    node.restart()
    job = start(node, program, undisturbed, 0.1)
    node.stop()
    test.check_nothing_left()
    node.start()
    expect(node.state_of(job) in (None, "stopped", "exited"), "a stopped job")
    test.check_idle(node)


def device_fails(test):
    """Nested: the driver says that a device is gone. The warm runner is not used
    any more, nobody gets the device, posd says why; when it works again, it is
    offered again."""
    if not NESTED:
        raise Skip("needs a driver that can fail: scripts/nested --around")
    needs_program("vector_add")
    library = [line.split("=", 1)[1] for line in NESTED
               if line.startswith("cuda.driver_library=")][0]
    switch = os.path.join(test.directory, "device-is-gone")
    node = test.node(
        options={"cuda.driver_library": os.path.join(
            BUILD, "tests/pos/cuda_impl/device_cuda/libfaulty_driver.so"),
            "runner.warm_pool": "1"},
        posd_environment={"POS_FAULTY_REAL": library, "POS_FAULTY_CALL": "none",
                          "POS_FAULTY_SWITCH": switch})
    program = Program(test, "vector_add")

    def run_once():
        running = node.begin("run", "--", *program.command(1), as_json=False)
        return running.status(), running.output + running.errors

    def state():
        return node.cli("devices")["devices"][0]["state"]
    status, text = run_once()
    expect_equal(status, 0, f"exit status: {text}")
    with open(switch, "wb"):
        pass
    status, text = run_once()
    expect(status != 0, "a program ran on a device that is gone")
    expect(b"CUDA_ERROR_DEVICE_UNAVAILABLE" in text, f"no reason: {text}")
    expect_equal(state(), "failed", "state of the device")
    error = node.cli_fails("run", "--device", "0", "--", "/bin/true")
    expect("CUDA_ERROR_DEVICE_UNAVAILABLE" in error.message, error.message)
    error = node.cli_fails("check", code="NOT_READY")
    expect("device 0" in error.message, error.message)
    os.unlink(switch)
    wait_until(lambda: state() == "ready", "the device's return", 60)
    status, text = run_once()
    expect_equal(status, 0, f"exit status: {text}")
    test.check_idle(node)


TESTS = {f.__name__: f for f in (
    client_killed, runner_killed, pos_job_killed, pos_cli_killed,
    posd_killed_idle, posd_killed_in_checkpoint, posd_killed_in_stop,
    posd_killed_in_restore, pos_job_killed_in_restore,
    runner_killed_in_restore, keep_jobs, detached_late,
    record_damaged, device_fails)}

if __name__ == "__main__":
    main(TESTS)
