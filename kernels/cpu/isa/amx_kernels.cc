#include "kernels/cpu/isa/amx_kernels.h"

#include "kernels/cpu/isa/lanes_avx512.h"
// The shared bodies follow their vector type.
#include "kernels/cpu/isa/vector_math.h"
// (kept apart so that no tool sorts them before it)
#include "kernels/cpu/isa/float_matmul.h"
// what coding needs of the vector type
#include "kernels/cpu/isa/coded_lanes_avx512.h"
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
// int16 products of few rows
#include "kernels/cpu/isa/int16_lanes_avx512.h"
// (the tile first)
#include "kernels/cpu/isa/int16_tile.h"
// (the products last)
#include "kernels/cpu/isa/group_bytes.h"
// (over them)
#include "kernels/cpu/isa/int16_groups.h"
// and their bf16 forms
#include "kernels/cpu/isa/bf16_rows.h"
// (the policy last)
#include "kernels/cpu/isa/bf16_attention.h"
// on tiles
#include "kernels/cpu/isa/amx_tiles.h"
// (of few rows)
#include "kernels/cpu/isa/amx_groups.h"
// (over whole pages)
#include "kernels/cpu/isa/amx_expand.h"
// over coded pages
#include "kernels/cpu/isa/coded_terms.h"
// (levels as tiles take them)
#include "kernels/cpu/isa/amx_levels.h"
// (their products)
#include "kernels/cpu/isa/amx_coded.h"
// (for many questions)
#include "kernels/cpu/isa/amx_pairs.h"
// (the policy of both)
#include "kernels/cpu/isa/amx_attention.h"
// and the index of retrieval
#include "kernels/cpu/isa/index_bytes_vnni.h"
// (the scan over them)
#include "kernels/cpu/isa/index_scan.h"

namespace corpusd {

extern const CpuKernels kAmxKernels = {
    .name = "amx",
    .row_multiple = 32,
    .panel_multiple = 2,
    .few_rows = kFewRows,
    .prepared_bytes = AmxPreparedBytes,
    .prepare_rows = AmxPrepareRows,
    .matmul_scratch_bytes = AmxMatMulScratchBytes,
    .matmul = AmxMatMul,
    .attend = AmxAttend,
    .attend_part = AmxAttendPart,
    .attend_parts = AmxAttendParts,
    .expand_pages = AmxExpandPages,
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
