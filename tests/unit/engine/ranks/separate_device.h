// tests/unit/engine/ranks/separate_device.h -- devices whose memory the CPU must not touch, for
// tests of what a rank does with one: the CPU's backend over memory that is only there during its
// calls (a look at it from elsewhere is a segmentation fault), a device tier in it, and transfers
// between devices that take nothing but such memory.
#pragma once

#include <memory>
#include <string>

#include "engine/engine.h"
#include "engine/ranks/device_source.h"

namespace corpusd {

// For the names "device:0", "device:1", ...; span_pages: of the backend's attention, 0: as ever.
std::shared_ptr<DeviceSource> SeparateDevices(uint32_t span_pages = 0);
// Whether the address is in memory of such a device.
bool IsSeparate(const void* address);

// Where the ranks of a test run: CPUs, such devices, or CUDA devices.
struct TestDevices {
  explicit TestDevices(const char* kind)
      : name(kind), source(name == "device" ? SeparateDevices() : HostDevices()) {}
  std::string NameOf(uint32_t rank) const {
    return name == "cpu" ? name : name + ":" + std::to_string(rank);
  }
  // What an engine of so many ranks in one process, and its store, are opened with.
  void Use(uint32_t ranks, EngineOptions* engine, BlockStoreOptions* store) const {
    engine->device = NameOf(0);
    engine->ranks.source = source;
    engine->ranks.devices.clear();
    for (uint32_t rank = 0; ranks > 1 && rank < ranks; ++rank) {
      engine->ranks.devices.push_back(NameOf(rank));
    }
    store->device = nullptr;
    const DeviceRoom room = *source->MakeRoom(NameOf(0), uint64_t{256} << 20);
    store->device = room.memory;
    store->device_bytes = room.bytes;
  }

  const std::string name;  // "cpu", "device", "cuda"
  const std::shared_ptr<DeviceSource> source;
};

}  // namespace corpusd
