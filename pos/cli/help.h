// What follows the options in the commands' --help: examples, JSON objects,
// exit statuses. docs/cli.md says the same at more length.
#ifndef POS_CLI_HELP_H_
#define POS_CLI_HELP_H_

namespace pos::cli::help {

inline constexpr char kMain[] = R"(Example:
  pos-cli run --name train -- python3 train.py
  pos-cli checkpoint train
  pos-cli restore IMAGE

Exit status: 0 success, 1 failure, 2 the command line makes no sense,
128+n ended by signal n; of run and wait the job's, or 125 when pos-cli itself
fails. `pos-cli COMMAND --help` has more on each command.)";

inline constexpr char kRun[] =
    R"(The program behaves as without POS: its standard streams, signals and exit
status are those of pos-cli. 125: pos-cli itself failed; 126, 127: the program
cannot be executed, is not there. With --detach the job's name is printed and
the job goes on by itself; `pos-cli logs` shows its output.

Example:
  pos-cli run --name train --device 0 -- python3 train.py --epochs 90
  pos-cli run -d -- ./simulate

JSON (with --detach): {"job", "pid", "ns_pid"}. pid is as posd sees it and
changes at a restore, ns_pid is as the job sees itself and never changes.)";

inline constexpr char kPs[] = R"(Example:
  pos-cli ps
  pos-cli ps --json | jq -r '.jobs[] | select(.state == "running") | .job'

JSON: {"jobs": [{"job", "pid", "state", "exit_code", "devices",
"sessions": [{"session", "pid", "calls", "device_bytes"}], "series"}]}.
series: null, or, with periodic checkpoints, {"every_ms", "keep", "next_at",
"last_image", "last_error"}.
state: starting, running, checkpointing, stopped, restoring, migrating,
in-doubt, exited, failed. exit_code: null while the job lives, 128+n after
signal n. Jobs that ended are listed for as long as posd remembers them.)";

inline constexpr char kLogs[] = R"(Example:
  pos-cli logs train
  pos-cli logs -f train

JSON: {"job", "output"}. output is text: bytes that are no UTF-8 are replaced.
With --follow the object is printed when the job has ended.)";

inline constexpr char kWait[] = R"(Example:
  pos-cli wait train && echo done

JSON: {"job", "state", "exit_code", "message"}. message: why it failed, or null.
Exit status: the job's; 125 when pos-cli itself fails.)";

inline constexpr char kStop[] =
    R"(The job is asked with SIGINT; while it does not end, it gets SIGTERM and then
SIGKILL.

Example:
  pos-cli stop train

JSON: {"job", "exit_code", "rung"}. rung: what it took, "asked", "SIGTERM" or
"SIGKILL"; null when the job had ended.)";

inline constexpr char kDevices[] = R"(Example:
  pos-cli devices

JSON: {"devices": [{"device", "kind", "name", "memory_bytes", "free_bytes",
"state", "sessions"}]}. kind: cuda or sim.)";

inline constexpr char kCheck[] = R"(Exit status 0 when all checks are passed.

Example:
  pos-cli check

JSON: {"checks": [{"name", "ok", "detail"}]}, and "error" when one is not
passed.)";

inline constexpr char kCheckpoint[] =
    R"(Ctrl-C cancels: the job runs on as if nothing had been asked for.

Example:
  pos-cli checkpoint train
  pos-cli checkpoint train --stop --tag before-upgrade
  pos-cli checkpoint train --mode cow
  pos-cli checkpoint train --every 30m --keep 3
  pos-cli checkpoint train --every 0

With --every posd writes an image each time that long has passed, until the job
ends or --every 0; the command returns at once. One that fails is tried again at
the next time. --keep: older ones of these images are removed.
JSON (with --every): {"job", "every_ms", "keep"}.

JSON: {"image", "job", "mode", "reason", "stall_ms", "cpu_dump_ms", "total_ms",
"live_bytes", "copied_bytes", "written_bytes", "chunks", "unforeseen_chunks",
"rounds", "digest_ms", "attempts", "attempts_stall_ms"}.
mode: the one that was taken; reason: why. unforeseen_chunks: what cow missed, so that
it turned to recopy. digest: reading all memory at the cut, part of stall.
stall: from the first call held back to the last let go; it contains cpu_dump.
attempts: to bring the job to rest; attempts_stall: time held back in those that
failed, not part of stall.
total: until the image is complete. live: allocated device memory. written: what
the image takes on disk.)";

inline constexpr char kRestore[] = R"(Example:
  pos-cli restore IMAGE
  pos-cli restore IMAGE --lazy
  pos-cli restore IMAGE --name again --device 0:1 --files copy=/tmp/again

JSON: {"job", "pid", "image", "lazy", "restore_ms", "loaded_ms"}. restore: until
the first call is let in. loaded: until all device memory is in place. With
--lazy the job runs from the first on; to interrupt pos-cli then does not undo
the restore.)";

inline constexpr char kImages[] = R"(Example:
  pos-cli images ls
  pos-cli images export IMAGE train.posimage)";

inline constexpr char kImagesList[] = R"(Example:
  pos-cli images ls
  pos-cli images ls --json | jq -r '.images[-1].image'

JSON: {"images": [{"image", "job", "created_at", "mode", "live_bytes",
"stored_bytes"}]}. created_at: milliseconds since the epoch.)";

inline constexpr char kImagesShow[] = R"(Example:
  pos-cli images show IMAGE

JSON: {"image", "job", "created_at", "mode", "reason", "tag", "uid", "argv",
"cwd", "ns_pid", "log_bytes",
"host": {"name", "kernel", "machine", "cpu", "pos", "criu"},
"devices": [{"device", "kind", "name", "architecture", "multiprocessors",
"memory_bytes", "driver"}],
"sessions": [{"session", "ns_pid", "live_bytes", "chunks", "zero_bytes",
"stored_bytes"}],
"open_files": [{"path", "bytes"}],
"memory": [{"session", "kind", "device", "address", "name", "bytes",
"zero_bytes", "stored_bytes", "reused_bytes"}],
"handles": [{"session", "kind", "count", "bytes"}],
"largest_handles": [{"session", "kind", "handle", "parent", "bytes"}],
"live_bytes", "stored_bytes", "reused_bytes", "chunks", "stall_ms",
"cpu_dump_ms", "total_ms", "memory_left_out"}.
memory: allocations, and state of POS itself (kind blob); the largest 4096 of a
session, memory_left_out counts the others. handles: contexts, streams, modules
and so on; bytes is what making them again takes. stored: written for this image;
reused: stored bytes of earlier images.)";

inline constexpr char kImagesVerify[] =
    R"(Exit status 0 when the image is whole.

Example:
  pos-cli images verify IMAGE

JSON: {"image", "ok", "files", "chunks", "bytes", "problems",
"first_problems"}, and "error" when it is not whole.)";

inline constexpr char kImagesRemove[] = R"(Example:
  pos-cli images rm IMAGE

JSON: {"image"}.)";

inline constexpr char kImagesDiff[] =
    R"(Memory is compared place by place, without reading it. Images of different
stores, or of different chunk sizes, cannot be compared.

Example:
  pos-cli images diff IMAGE-1 IMAGE-2

JSON: {"image_a", "image_b", "same_bytes", "changed_bytes", "only_a_bytes",
"only_b_bytes", "differences"}. differences: in words, of what is not memory.)";

inline constexpr char kImagesGc[] =
    R"(posd does this by itself after `images rm` and at its start. It is for root, or
for who runs posd.

Example:
  pos-cli images gc

JSON: {"removed_images", "removed_packs", "freed_bytes", "held_back"}. held_back:
null, or why nothing but removed images was freed.)";

inline constexpr char kImagesExport[] =
    R"(The file holds all that the image needs, also chunks that it shares with others.
It appears when it is complete. With - the image goes to standard output, and
what the command says to standard error.

Example:
  pos-cli images export IMAGE train.posimage
  pos-cli images export IMAGE - | ssh other pos-cli images import -

JSON: {"image", "file", "bytes"}.)";

inline constexpr char kImagesImport[] =
    R"(The image gets a new name, and is there once all of it was read and checked.
Users import what was exported as theirs by this posd, or by one with the same
key (option ckpt.export_key_file); root imports any file, and so has to know
where it comes from: its processes are restored as it says.

Example:
  pos-cli images import train.posimage

JSON: {"image", "job", "source", "bytes", "stored_bytes"}. source: the image's
name where it was exported.)";

}  // namespace pos::cli::help

#endif  // POS_CLI_HELP_H_
