#include "kernels/cpu/isa/avx512_bf16_kernels.h"

#include "kernels/cpu/isa/lanes_avx512.h"
// The shared bodies follow their vector type.
#include "kernels/cpu/isa/vector_math.h"
// (kept apart so that no tool sorts them before it)
#include "kernels/cpu/isa/float_matmul.h"
// then the product, which attention uses
#include "kernels/cpu/isa/attention_body.h"
// int16 products of few rows
#include "kernels/cpu/isa/int16_lanes_avx512.h"
// (the tile first)
#include "kernels/cpu/isa/int16_tile.h"
// (the products last)
#include "kernels/cpu/isa/int16_groups.h"
// and their bf16 forms
#include "kernels/cpu/isa/bf16_matmul.h"
// (the policy last)
#include "kernels/cpu/isa/bf16_attention.h"

namespace corpusd {

extern const CpuKernels kAvx512Bf16Kernels = {
    .name = "avx512bf16",
    .row_multiple = kBf16TileRows,
    .panel_multiple = kBf16TilePanels,
    .few_rows = kInt16FewRows,
    .prepared_bytes = Bf16PreparedBytes,
    .prepare_rows = Bf16PrepareRows,
    .matmul_scratch_bytes = Bf16MatMulScratchBytes,
    .matmul = Bf16MatMul,
    .attend = Attend<Bf16Policy>,
    .attend_part = AttendPart<Bf16Policy>,
    .merge_parts = MergeParts,
    .rms_norm = RmsNormRows,
    .swiglu = SwiGluRows,
};

}  // namespace corpusd
