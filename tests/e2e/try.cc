// Drives a Supervisor without gRPC: run, checkpoint, restore by hand.
#include <fcntl.h>
#include <unistd.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include "pos/base/files.h"
#include "pos/base/log.h"
#include "pos/base/clock.h"
#include "pos/daemon/supervisor.h"
extern char** environ;
using namespace pos;
int main(int argc, char** argv) {
  std::string dir = argv[1], mode = argv[2];
  SupervisorOptions o;
  o.state_dir = dir; o.runtime_dir = dir + "/run"; o.program_dir = "/work/main/build/bin";
  o.shim = "/work/main/build/lib/pos/libcuda.so.1"; o.host_file_dir = "/dev/shm";
  o.criu = "/tmp/criu/criu";
  NodeDevice d; d.kind="sim"; d.name="POS Simulated Device"; d.memory_bytes = 8ull<<30; d.compute_capability=90; d.multiprocessors=132;
  o.devices = {d};
  SetLogLevel(LogLevel::kDebug);
  Supervisor s(o);
  auto st = s.Start(); if(!st.ok()){ printf("start %s\n", st.ToString().c_str()); return 1; }
  Caller root;
  auto prog=[](const v1::Progress& p){ printf("  progress %s\n", p.phase().c_str()); return true; };
  v1::RunRequest r; for(int i=3;i<argc;i++) r.add_argv(argv[i]);
  for(char**e=environ;*e;e++) r.add_environment(*e);
  r.set_directory("/tmp"); r.set_umask(022);
  uint64_t t0=MonotonicNs();
  auto rr = s.Run(root, r, {});
  if(!rr.ok()){ printf("run %s\n", rr.status().ToString().c_str()); return 1; }
  printf("job %s pid %d (%.1f ms)\n", rr->job().c_str(), rr->pid(), double(MonotonicNs()-t0)/1e6);
  std::string job = rr->job();
  if (mode != "run") {
    SleepNs(std::stoull(mode.substr(mode.find(':')+1))*1000000);
    v1::CheckpointRequest c; c.set_job(job); c.set_stop(mode[0]=='s');
    auto cr = s.Checkpoint(root, c, prog);
    if(!cr.ok()){ printf("checkpoint %s\n", cr.status().ToString().c_str()); }
    else { printf("%s\n", cr->DebugString().c_str());
      if (mode[0]=='s') {
        v1::RestoreRequest q; q.set_image(cr->image());
        auto qr = s.Restore(root, q, prog);
        if(!qr.ok()) printf("restore %s\n", qr.status().ToString().c_str());
        else { printf("%s\n", qr->DebugString().c_str()); job = qr->job(); }
      }
    }
  }
  v1::WaitRequest w; w.set_job(job);
  auto wr = s.Wait(root, w, []{return false;});
  printf("wait %s exit %d (%.1f ms)\n", wr.ok()?"ok":wr.status().ToString().c_str(), wr.ok()?wr->exit_code():-1, double(MonotonicNs()-t0)/1e6);
  v1::LogsRequest l; l.set_job(job);
  s.Logs(root,l,[](std::string_view t){ fwrite(t.data(),1,t.size(),stdout); return true; },[]{return false;}).IgnoreError();
  fflush(stdout);
  s.Shutdown(false);
  return 0;
}
