// Launches of CUDA kernels over many rows, as far as they can be judged without a device.
#include "kernels/cuda/launch_shape.h"

#include <gtest/gtest.h>

#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/piece_merge.h"

namespace corpusd::cuda {
namespace {

TEST(LaunchShapeTest, OnlyTheFirstWayTakesManyBlocks) {
  EXPECT_TRUE((LaunchShape{1u << 30, 65'535, 65'535}.Fits()));
  EXPECT_FALSE((LaunchShape{40, 65'536}.Fits()));
  EXPECT_FALSE((LaunchShape{1, 1, 65'536}.Fits()));
}

TEST(LaunchShapeTest, AnyNumberOfRowsIsLaunched) {
  for (const uint32_t rows : {1u, 65'535u, 65'536u, 1u << 20}) {
    PieceMerge merge;
    merge.out.rows = rows;
    merge.q_heads = 40;
    EXPECT_TRUE(PieceMergeLaunch(merge).Fits()) << rows;
    DeviceMatrix wide;
    wide.rows = rows;
    wide.cols = 32'768;
    EXPECT_TRUE(ColumnLaunch(wide, 256).Fits()) << rows;
    EXPECT_EQ(uint64_t{ColumnLaunch(wide, 256).x} * ColumnLaunch(wide, 256).y, rows * 128ull);
  }
}

}  // namespace
}  // namespace corpusd::cuda
