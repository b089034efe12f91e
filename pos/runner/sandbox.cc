#include "pos/runner/sandbox.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <vector>

namespace pos {
namespace {

// Refused. A list of what is refused rather than of what is allowed: a runner
// will load a driver whose system calls are not known here.
constexpr std::array kRefused = {
    SYS_execve,
    SYS_execveat,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_setns,
    SYS_unshare,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_acct,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_userfaultfd,
    SYS_open_by_handle_at,
    SYS_name_to_handle_at,
    SYS_quotactl,
    SYS_setuid,
    SYS_setgid,
    SYS_setresuid,
    SYS_setresgid,
    SYS_kcmp,
    SYS_lookup_dcookie,
    SYS_syslog,
    SYS_move_mount,
    SYS_open_tree,
    SYS_fsopen,
    SYS_fsmount,
    SYS_fspick,
    SYS_fsconfig,
};

std::vector<sock_filter> MakeFilter() {
  std::vector<sock_filter> filter;
  const auto statement = [&](unsigned short code, unsigned value) {
    filter.push_back(sock_filter{code, 0, 0, value});
  };
  const auto jump_equal = [&](unsigned value, unsigned char yes,
                              unsigned char no) {
    filter.push_back(sock_filter{BPF_JMP | BPF_JEQ | BPF_K, yes, no, value});
  };
  // Another architecture's numbers mean other calls.
  statement(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch));
  jump_equal(AUDIT_ARCH_X86_64, 1, 0);
  statement(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  statement(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr));
  for (const long call : kRefused) {
    jump_equal(static_cast<unsigned>(call), 0, 1);
    statement(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
  }
  statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  return filter;
}

}  // namespace

Status EnterSandbox() {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return ErrnoStatus(errno, "no_new_privs");
  }
  std::vector<sock_filter> filter = MakeFilter();
  const sock_fprog program{static_cast<unsigned short>(filter.size()),
                           filter.data()};
  // For all threads: devices have started some.
  if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC,
                &program) != 0) {
    return ErrnoStatus(errno, "seccomp");
  }
  return {};
}

}  // namespace pos
