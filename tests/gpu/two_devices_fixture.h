// tests/gpu/two_devices_fixture.h -- a tiny model for an engine over two CUDA devices, with heads
// that their kernels take. Skips where there is one device.
#pragma once

#include "engine/backend/device_backend.h"
#include "store/base/fault_point.h"
#include "tests/unit/engine/engine_fixture.h"

namespace corpusd {

class TwoDevicesFixture : public EngineFixture {
 protected:
  void SetUp() override {
    if (CudaDeviceCount() < 2) GTEST_SKIP() << CudaDeviceCount() << " devices";
    model_.q_heads = 8;
    model_.kv_heads = 2;
    model_.head_dim = 64;
    EngineFixture::SetUp();
    model_.context_tokens = 24576;
    WriteTinyModel(options_.model_path, model_);
  }
  void TearDown() override { DisarmFaults(); }
};

}  // namespace corpusd
