#include "kernels/cpu/isa/avx2_kernels.h"

#include "kernels/cpu/isa/lanes_avx2.h"
// The shared bodies follow their vector type.
#include "kernels/cpu/isa/vector_math.h"
// (kept apart so that no tool sorts them before it)
#include "kernels/cpu/isa/float_matmul.h"
// what coding needs of the vector type
#include "kernels/cpu/isa/coded_lanes_avx2.h"
// (the places of codes)
#include "kernels/cpu/isa/coded_pack.h"
// (then the encoder)
#include "kernels/cpu/isa/coded_encode.h"
// (and the way back)
#include "kernels/cpu/isa/coded_unpack.h"
// then the product, which attention uses
#include "kernels/cpu/isa/attention_rows.h"
// (whole pages)
#include "kernels/cpu/isa/page_expand.h"
// (pages of rows)
#include "kernels/cpu/isa/attention_body.h"
// and its policy
#include "kernels/cpu/isa/float_attention.h"
// int16 products, over their own few operations
#include "kernels/cpu/isa/int16_lanes_avx2.h"
// (the tile first)
#include "kernels/cpu/isa/int16_tile.h"
// then products of few rows
#include "kernels/cpu/isa/group_words.h"
// (over them)
#include "kernels/cpu/isa/int16_groups.h"
// and of many
#include "kernels/cpu/isa/int16_blocks.h"
// and attention
#include "kernels/cpu/isa/int16_attention.h"
// and the index of retrieval
#include "kernels/cpu/isa/index_bytes_avx2.h"
// (the scan over them)
#include "kernels/cpu/isa/index_scan.h"

namespace corpusd {

extern const CpuKernels kAvx2Kernels = {
    .name = "avx2",
    .row_multiple = kInt16TileRows,
    .panel_multiple = kInt16TilePanels,
    .few_rows = kFewRows,
    .prepared_bytes = Int16PreparedBytes,
    .prepare_rows = Int16PrepareRows,
    .matmul_scratch_bytes = Int16MatMulScratchBytes,
    .matmul = Int16MatMul,
    .attend = Int16Attend,
    .attend_part = Int16AttendPart,
    .attend_parts = Int16AttendParts,
    .expand_pages = ExpandPages<FloatExpansion>,
    .merge_parts = MergeParts,
    .merge_state = MergeInto,
    .write_state = WriteState,
    .to_coordinates = ToCoordinates,
    .encode_tile = EncodeTile,
    .encode_scratch_bytes = EncodeScratchBytes,
    .scan_index = ScanIndex,
    .rms_norm = RmsNormRows,
    .swiglu = SwiGluRows,
};

}  // namespace corpusd
