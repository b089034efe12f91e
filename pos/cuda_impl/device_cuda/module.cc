#include "pos/cuda_impl/device_cuda/module.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "pos/base/log.h"
#include "pos/cuda_impl/device_cuda/image_symbols.h"
#include "pos/cuda_impl/fatbin/fatbin.h"
#include "pos/cuda_impl/fatbin/image_length.h"

namespace pos::cuda_device {
namespace {

// The record of section .nvFatBinSegment, version 2 (fatbin/image_length.h):
// how several images reach the driver as one.
struct Wrapper {
  std::uint32_t magic = fatbin::kWrapperMagic;
  std::uint32_t version = 2;
  const void* data = nullptr;
  const void* const* more = nullptr;
};

// An image in memory of its own, with a NUL behind it and every fat binary of a
// concatenation aligned; the driver may read it as long as the module is there.
class OwnImage {
 public:
  explicit OwnImage(std::span<const std::byte> image) {
    // First, how many there are.
    std::vector<std::span<const std::byte>> parts;
    while (image.size() >= fatbin::kFatbinHeaderBytes) {
      std::uint32_t magic = 0;
      std::uint64_t bytes = 0;
      std::memcpy(&magic, image.data(), sizeof(magic));
      std::memcpy(&bytes, image.data() + 8, sizeof(bytes));
      if (magic != fatbin::kFatbinMagic ||
          bytes > image.size() - fatbin::kFatbinHeaderBytes) {
        break;
      }
      const std::size_t whole = fatbin::kFatbinHeaderBytes + bytes;
      parts.push_back(image.first(whole));
      image = image.subspan(whole);
      while (!image.empty() && image.front() == std::byte{0}) {
        image = image.subspan(1);
      }
    }
    if (parts.empty()) parts.push_back(image);
    for (const auto& part : parts) {
      // new gives memory for any type: 16 bytes of alignment.
      std::vector<std::byte>& own = parts_.emplace_back(part.size() + 1);
      std::copy(part.begin(), part.end(), own.begin());
    }
    for (std::size_t i = 1; i < parts_.size(); ++i) {
      pointers_.push_back(parts_[i].data());
    }
    pointers_.push_back(nullptr);
    wrapper_.data = parts_.front().data();
    wrapper_.more = pointers_.data();
  }
  OwnImage(const OwnImage&) = delete;
  OwnImage& operator=(const OwnImage&) = delete;

  [[nodiscard]] const void* data() const {
    return parts_.size() > 1 ? static_cast<const void*>(&wrapper_)
                             : parts_.front().data();
  }

 private:
  std::vector<std::vector<std::byte>> parts_;
  std::vector<const void*> pointers_;
  Wrapper wrapper_;
};

// Of a cubin by itself: whether its headers and tables lie inside.
bool LengthHolds(std::span<const std::byte> image) {
  std::array<char, 4> magic{};
  if (image.size() < magic.size()) return true;
  std::memcpy(magic.data(), image.data(), magic.size());
  std::uint32_t number = 0;
  std::memcpy(&number, magic.data(), sizeof(number));
  constexpr std::size_t kElfHeaderBytes = 64;
  return number != fatbin::kElfMagic ||
         (image.size() >= kElfHeaderBytes &&
          fatbin::ImageBytes(image.data()) <= image.size() &&
          fatbin::ImageBytes(image.data()) != 0);
}

class CudaModule : public DeviceModule {
 public:
  CudaModule(std::shared_ptr<ContextCore> core, CudaMemory* memory,
             std::unique_ptr<OwnImage> image, CUmodule module,
             ImageSymbols symbols)
      : core_(std::move(core)),
        memory_(memory),
        image_(std::move(image)),
        module_(module),
        symbols_(std::move(symbols)) {}
  ~CudaModule() override {
    for (const GlobalInfo& global : globals_) {
      memory_->RemoveVariable(global.address);
    }
    core_->completer->Retire(core_.get(), module_);
  }

  // With the core's use_mu held (the caller has it under another name).
  Status FindVariables() POS_NO_THREAD_SAFETY;
  DeviceFunction* FindFunction(std::string_view name) override;
  [[nodiscard]] std::vector<std::string> FunctionNames() const override;
  [[nodiscard]] const std::vector<GlobalInfo>& Globals() const override {
    return globals_;
  }

 private:
  void ReadParams(CUfunction function, FunctionInfo* info) const;

  const std::shared_ptr<ContextCore> core_;
  CudaMemory* const memory_;
  const std::unique_ptr<OwnImage> image_;
  const CUmodule module_;
  const ImageSymbols symbols_;
  std::vector<GlobalInfo> globals_;
  std::map<std::string, std::unique_ptr<CudaFunction>, std::less<>> functions_;
};

Status CudaModule::FindVariables() {
  for (const ImageVariable& variable : symbols_.variables) {
    CUdeviceptr address = 0;
    std::size_t bytes = 0;
    const CUresult result = core_->driver.ModuleGetGlobal(
        &address, &bytes, module_, variable.name.c_str());
    // In an image for another architecture only, or optimized away.
    if (result == CUDA_ERROR_NOT_FOUND) continue;
    core_->EndsContext(result);
    POS_RETURN_IF_ERROR(
        core_->driver.Check(result, "find variable " + variable.name));
    const bool known = std::any_of(
        globals_.begin(), globals_.end(),
        [address](const GlobalInfo& g) { return g.address == address; });
    if (known) continue;
    globals_.push_back(
        {variable.name, address, bytes, variable.constant, variable.managed});
    memory_->AddVariable(address, std::max<std::uint64_t>(bytes, 1));
  }
  return {};
}

// From the driver, else from the cubin's own description.
void CudaModule::ReadParams(CUfunction function, FunctionInfo* info) const {
  if (core_->driver.FuncGetParamInfo != nullptr) {
    for (std::size_t i = 0;; ++i) {
      std::size_t offset = 0;
      std::size_t bytes = 0;
      if (core_->driver.FuncGetParamInfo(function, i, &offset, &bytes) !=
          CUDA_SUCCESS) {
        break;
      }
      info->params.push_back({static_cast<std::uint32_t>(offset),
                              static_cast<std::uint32_t>(bytes)});
    }
  } else {
    const auto it = symbols_.params.find(info->name);
    if (it != symbols_.params.end()) info->params = it->second;
  }
  for (const ParamInfo& param : info->params) {
    info->params_bytes =
        std::max(info->params_bytes, param.offset + param.size);
  }
}

DeviceFunction* CudaModule::FindFunction(std::string_view name) {
  const auto it = functions_.find(name);
  if (it != functions_.end()) return it->second.get();
  FunctionInfo info;
  info.name = std::string(name);
  info.uses_heap = symbols_.uses_heap;
  info.prints = symbols_.prints;
  MutexLock use(&core_->use_mu);
  if (!core_->Enter()) return nullptr;
  CUfunction function = nullptr;
  const CUresult result =
      core_->driver.ModuleGetFunction(&function, module_, info.name.c_str());
  if (core_->EndsContext(result) || result == CUDA_ERROR_NOT_FOUND) {
    return nullptr;
  }
  if (result != CUDA_SUCCESS) {
    info.launch_error = static_cast<DeviceError>(result);
    info.launch_error_text = core_->driver.NameOf(result);
  } else {
    ReadParams(function, &info);
  }
  auto made = std::make_unique<CudaFunction>(core_, function, std::move(info));
  if (result == CUDA_SUCCESS) made->ReadAttributes();
  return functions_.emplace(std::string(name), std::move(made))
      .first->second.get();
}

std::vector<std::string> CudaModule::FunctionNames() const {
  std::vector<std::string> names;
  MutexLock use(&core_->use_mu);
  unsigned count = 0;
  if (!core_->Enter() ||
      core_->driver.ModuleGetFunctionCount(&count, module_) != CUDA_SUCCESS) {
    return names;
  }
  std::vector<CUfunction> functions(count);
  if (count == 0 || core_->driver.ModuleEnumerateFunctions(
                        functions.data(), count, module_) != CUDA_SUCCESS) {
    return names;
  }
  for (CUfunction const function : functions) {
    const char* name = nullptr;
    if (core_->driver.FuncGetName(&name, function) == CUDA_SUCCESS &&
        name != nullptr) {
      names.emplace_back(name);
    }
  }
  return names;
}

}  // namespace

void CudaFunction::ReadAttributes() {
  info_.attributes.clear();
  for (int i = 0; i < CU_FUNC_ATTRIBUTE_MAX; ++i) {
    int value = 0;
    if (core_->driver.FuncGetAttribute(&value,
                                       static_cast<CUfunction_attribute>(i),
                                       function_) == CUDA_SUCCESS) {
      info_.attributes.emplace_back(i, value);
    }
  }
}

DeviceError CudaFunction::SetAttribute(std::int32_t attribute,
                                       std::int32_t value) {
  MutexLock use(&core_->use_mu);
  if (!core_->Enter() || function_ == nullptr) {
    return info_.launch_error != 0 ? info_.launch_error : core_->sticky.load();
  }
  const CUresult result = core_->driver.FuncSetAttribute(
      function_, static_cast<CUfunction_attribute>(attribute), value);
  core_->EndsContext(result);
  if (result == CUDA_SUCCESS) ReadAttributes();
  return static_cast<DeviceError>(result);
}

Result<std::unique_ptr<DeviceModule>> LoadCudaModule(
    const std::shared_ptr<ContextCore>& core, CudaMemory* memory,
    std::span<const std::byte> image, DeviceError* error) {
  // The driver believes the lengths in an image; the client's are not to be
  // believed.
  *error = CUDA_ERROR_INVALID_IMAGE;
  POS_ASSIGN_OR_RETURN(const std::vector<fatbin::Entry> entries,
                       fatbin::ListEntries(image));
  if (!LengthHolds(image)) {
    return Invalid("the code image ends before its own tables do");
  }
  ImageSymbols symbols = ReadSymbols(entries);
  auto own = std::make_unique<OwnImage>(image);
  std::array<char, 4096> log{};
  std::array<CUjit_option, 2> options = {CU_JIT_ERROR_LOG_BUFFER,
                                         CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  std::array<void*, 2> values = {log.data(),
                                 reinterpret_cast<void*>(log.size() - 1)};
  MutexLock use(&core->use_mu);
  if (!core->Enter()) {
    *error = core->sticky.load();
    return Status(Code::kDeviceGone, "the context has failed");
  }
  if (symbols.prints && core->output_owner == nullptr) {
    Result<std::shared_ptr<DriverOutput>> output = DriverOutput::Get();
    if (output.ok()) {
      core->output_owner = *std::move(output);
      core->output.store(core->output_owner.get(), std::memory_order_release);
    } else {
      POS_LOG(kWarning, "text that kernels print is lost",
              {{"why", output.status().message()}});
    }
  }
  CUmodule module = nullptr;
  const CUresult result = core->driver.ModuleLoadDataEx(
      &module, own->data(), static_cast<unsigned>(options.size()),
      options.data(), values.data());
  *error = static_cast<DeviceError>(result);
  core->EndsContext(result);
  if (result != CUDA_SUCCESS) {
    const std::string text = log[0] != '\0' ? log.data() : "no log";
    return core->driver.Check(result, "load code").WithContext(text);
  }
  auto made = std::make_unique<CudaModule>(core, memory, std::move(own), module,
                                           std::move(symbols));
  // In the same scope: the destructor only hands the module on.
  POS_RETURN_IF_ERROR(made->FindVariables());
  return std::unique_ptr<DeviceModule>(std::move(made));
}

}  // namespace pos::cuda_device
