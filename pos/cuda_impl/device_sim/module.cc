#include "pos/cuda_impl/device_sim/module.h"

#include <cuda.h>

#include <algorithm>

namespace pos::sim {
namespace {

// Zeros are written in pieces of this.
constexpr std::size_t kZeroBytes = 64 << 10;

Status WriteZeros(SimMemory* memory, std::uint64_t address,
                  std::uint64_t bytes) {
  const std::vector<std::byte> zeros(
      std::min<std::uint64_t>(bytes, kZeroBytes));
  for (std::uint64_t done = 0; done < bytes; done += zeros.size()) {
    POS_RETURN_IF_ERROR(memory->Write(
        address + done, std::span(zeros).first(std::min<std::uint64_t>(
                            zeros.size(), bytes - done))));
  }
  return OkStatus();
}

}  // namespace

SimModule::SimModule(std::shared_ptr<const CodeImage> image, const Place& place)
    : image_(std::move(image)), place_(place) {}

Result<std::unique_ptr<SimModule>> SimModule::Load(
    std::shared_ptr<const CodeImage> image, const Place& place,
    DeviceError* error) {
  std::unique_ptr<SimModule> module(new SimModule(std::move(image), place));
  *error = CUDA_ERROR_OUT_OF_MEMORY;
  POS_RETURN_IF_ERROR(module->PlaceVariables());
  *error = CUDA_ERROR_INVALID_IMAGE;
  POS_RETURN_IF_ERROR(module->WriteInitialBytes());
  *error = 0;
  module->place_.placer = nullptr;
  return module;
}

Status SimModule::PlaceVariables() {
  // Address by name, over all units: what one declares external another has.
  std::map<std::string_view, std::uint64_t> by_name;
  for (const auto& code : image_->units) {
    Unit unit;
    unit.code = code;
    for (const ptx::Variable& variable : code->variables()) {
      std::uint64_t address = 0;
      const bool place = !variable.external && variable.bytes != 0 &&
                         by_name.count(variable.name) == 0;
      if (place) {
        POS_ASSIGN_OR_RETURN(
            address, place_.placer->Place(
                         variable.name, variable.bytes,
                         std::max<std::uint64_t>(variable.alignment, 1)));
        by_name[variable.name] = address;
        const bool constant = variable.space == ptx::VariableSpace::kConst;
        if (constant) constant_bytes_ += variable.bytes;
        globals_.push_back({variable.name, address, variable.bytes, constant,
                            variable.managed});
      }
      unit.addresses.push_back(address);
      unit.owned.push_back(place);
    }
    units_.push_back(std::move(unit));
  }
  for (std::size_t u = 0; u < units_.size(); ++u) {
    Unit& unit = units_[u];
    const auto& variables = unit.code->variables();
    for (std::size_t i = 0; i < variables.size(); ++i) {
      const auto found = by_name.find(variables[i].name);
      if (found != by_name.end()) unit.addresses[i] = found->second;
    }
    unit.loaded = image_->Load(u, unit.addresses);
  }
  return OkStatus();
}

Status SimModule::WriteInitialBytes() {
  for (const Unit& unit : units_) {
    const auto& variables = unit.code->variables();
    for (std::size_t i = 0; i < variables.size(); ++i) {
      if (!unit.owned[i]) continue;
      const std::vector<std::byte> bytes = unit.loaded->InitialBytes(i);
      POS_RETURN_IF_ERROR(place_.memory->Write(unit.addresses[i], bytes));
      // The range may hold what a freed allocation left.
      POS_RETURN_IF_ERROR(WriteZeros(place_.memory,
                                     unit.addresses[i] + bytes.size(),
                                     variables[i].bytes - bytes.size()));
    }
  }
  return OkStatus();
}

DeviceFunction* SimModule::FindFunction(std::string_view name) {
  const auto known = functions_.find(name);
  if (known != functions_.end()) return known->second.get();
  std::unique_ptr<SimFunction> function;
  for (const Unit& unit : units_) {
    const ptx::Entry* entry = unit.code->FindEntry(name);
    if (entry == nullptr) continue;
    function = std::make_unique<SimFunction>(
        *entry, unit.code->target_sm(), place_.device_sm, constant_bytes_,
        std::make_shared<PtxKernel>(unit.loaded, entry->name, place_.view,
                                    place_.output));
    break;
  }
  for (const fatbin::CubinKernel& kernel : image_->cubin_kernels) {
    if (function == nullptr && kernel.name == name) {
      function = std::make_unique<SimFunction>(kernel, place_.device_sm);
    }
  }
  if (function == nullptr) return nullptr;
  return functions_.emplace(std::string(name), std::move(function))
      .first->second.get();
}

std::vector<std::string> SimModule::FunctionNames() const {
  std::vector<std::string> names;
  for (const Unit& unit : units_) {
    for (const ptx::Entry& entry : unit.code->entries()) {
      names.push_back(entry.name);
    }
  }
  for (const fatbin::CubinKernel& kernel : image_->cubin_kernels) {
    names.push_back(kernel.name);
  }
  return names;
}

}  // namespace pos::sim
