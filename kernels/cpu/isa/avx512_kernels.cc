#include "kernels/cpu/isa/avx512_kernels.h"

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
// and its policy
#include "kernels/cpu/isa/float_attention.h"
// and the index of retrieval
#include "kernels/cpu/isa/index_bytes_avx2.h"
// (the scan over them)
#include "kernels/cpu/isa/index_scan.h"

namespace corpusd {

extern const CpuKernels kAvx512Kernels = {
    .name = "avx512",
    .row_multiple = kTileRows,
    .panel_multiple = 1,
    .few_rows = kFewRows,
    .prepared_bytes = NoPreparedBytes,
    .prepare_rows = PrepareNothing,
    .matmul_scratch_bytes = FloatMatMulScratchBytes,
    .matmul = FloatMatMul,
    .attend = Attend<FloatPolicy>,
    .attend_part = AttendPart<FloatPolicy>,
    .attend_parts = AttendParts<FloatPolicy>,
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
