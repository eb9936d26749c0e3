#include "kernels/cpu/isa/avx2_kernels.h"

#include "kernels/cpu/isa/lanes_avx2.h"
// The shared bodies follow their vector type.
#include "kernels/cpu/isa/vector_math.h"
// (kept apart so that no tool sorts them before it)
#include "kernels/cpu/isa/float_matmul.h"
// then the product, which attention uses
#include "kernels/cpu/isa/attention_body.h"
// and its policy
#include "kernels/cpu/isa/float_attention.h"
// int16 products, over their own few operations
#include "kernels/cpu/isa/int16_lanes_avx2.h"
// (the tile first)
#include "kernels/cpu/isa/int16_tile.h"
// then the product
#include "kernels/cpu/isa/int16_matmul.h"

namespace corpusd {

extern const CpuKernels kAvx2Kernels = {
    .name = "avx2",
    .row_multiple = kInt16TileRows,
    .panel_multiple = kInt16TilePanels,
    .prepared_bytes = PreparedInt16Bytes,
    .prepare_rows = PrepareInt16Rows,
    .matmul_scratch_bytes = Int16MatMulScratchBytes,
    .matmul = Int16MatMul,
    .attend = Attend<FloatPolicy>,
    .attend_part = AttendPart<FloatPolicy>,
    .merge_parts = MergeParts,
    .rms_norm = RmsNormRows,
    .swiglu = SwiGluRows,
};

}  // namespace corpusd
