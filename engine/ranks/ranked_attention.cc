#include "engine/ranks/ranked_attention.h"

#include <algorithm>
#include <string>

#include "store/base/check.h"

namespace corpusd {
namespace {

std::span<const std::byte> BytesOf(std::span<const float> floats) { return std::as_bytes(floats); }

AttentionInput InputOver(AttentionInput input, std::span<const KvPageList> one_layer) {
  input.layer = 0;
  input.lists = one_layer;
  return input;
}

}  // namespace

const std::byte* RemotePage() {
  alignas(kTileAlignment) static constexpr std::byte kElsewhere[kTileAlignment] = {};
  return kElsewhere;
}

namespace {

NodeAttention& Checked(NodeAttention* nodes) {
  CHECK(nodes != nullptr) << "a backend without attention over several ranks";
  return *nodes;
}

}  // namespace

uint32_t RankedPass::ComputedBy(uint64_t block) const {
  const uint64_t position = block * kBlockTokens;
  for (uint32_t rank = 0; rank < pieces.size(); ++rank) {
    for (const RowPiece& piece : pieces[rank]) {
      if (position >= piece.first_position && position < piece.end()) return rank;
    }
  }
  CHECK(rows == Rows::kAlike) << "nobody computes block " << block;
  return 0;
}

RankedAttention::RankedAttention(Backend& local, Transport& transport)
    : local_(local),
      nodes_(Checked(NodeAttentionOf(local))),
      transport_(transport),
      placement_{transport.size(), nodes_.span_pages()} {}

void RankedAttention::Begin(const RankedPass& pass) {
  CHECK(pass.first_token % kBlockTokens == 0) << pass.first_token;
  CHECK(pass.rows == RankedPass::Rows::kAlike || pass.pieces.size() == placement_.ranks)
      << pass.pieces.size() << " of " << placement_.ranks << " ranks";
  pass_ = pass;
  dealt_.clear();
}

Status RankedAttention::Grow(std::unique_ptr<Buffer>* buffer, uint64_t bytes) {
  if (*buffer != nullptr && (*buffer)->bytes() >= bytes) return OkStatus();
  RETURN_IF_ERROR(local_.Synchronize());  // what is under way may read the old one
  buffer->reset();
  ASSIGN_OR_RETURN(*buffer, local_.Allocate(std::max<uint64_t>(bytes, 1), "what ranks exchange"));
  return OkStatus();
}

std::span<float> RankedAttention::FloatsIn(const std::unique_ptr<Buffer>& buffer, uint64_t count) {
  CHECK(buffer->bytes() >= count * sizeof(float)) << count;
  return {reinterpret_cast<float*>(buffer->data()), count};
}

Status RankedAttention::Await() { return WaitAll(left_); }

RankedAttention::Nodes RankedAttention::NodesOver(uint64_t pages, uint32_t width) const {
  Nodes nodes;
  const uint32_t spans = SpansOf(static_cast<uint32_t>(pages), placement_.span_pages);
  for (uint32_t rank = 0; rank < placement_.ranks; ++rank) {
    nodes.first.push_back(nodes.all.size());
    for (const MergeNode& node : placement_.NodesOf(rank, pages)) {
      FoldStrands(
          node, spans, 0, [&](MergeNode n) { return n.width >= width; },
          [&](MergeNode n, uint32_t) { nodes.all.push_back(n); }, [](uint32_t) {});
    }
  }
  nodes.first.push_back(nodes.all.size());
  return nodes;
}

uint64_t RankedAttention::PageCount() const {
  return (pass_.tokens + kBlockTokens - 1) / kBlockTokens + (pass_.sink_tokens > 0 ? 1 : 0);
}

// What `holder` sends to `reader`: its pages up to the reader's last row.
std::vector<uint64_t> RankedAttention::PagesFor(uint32_t holder, uint32_t reader) const {
  const uint64_t sinks = pass_.sink_tokens > 0 ? 1 : 0;
  std::vector<uint64_t> pages;
  for (uint64_t page = sinks; page < PageCount(); ++page) {
    if ((page - sinks) * kBlockTokens >= EndOfRows(reader)) break;
    if (placement_.RankOfPage(page) == holder) pages.push_back(page);
  }
  return pages;
}

std::vector<KvPageList> RankedAttention::ListsOver(const LayerPages& layer,
                                                   std::span<const KvPage> pages) const {
  std::vector<KvPageList> lists;
  const size_t sinks = pass_.sink_tokens > 0 ? 1 : 0;
  if (sinks > 0) lists.push_back({&layer.sink_format, pages.first(1)});
  lists.push_back({&layer.format, pages.subspan(sinks)});
  return lists;
}

// All pages of the text as a layer's rows see them; what any of this rank's pieces has is at hand.
void RankedAttention::FindPages(std::span<const AttentionPart> parts, LayerPages* layer) const {
  const AttentionInput& input = parts.front().input;
  const uint64_t sinks = pass_.sink_tokens > 0 ? 1 : 0;
  layer->sink_format = input.lists.front().format->OfLayer(input.layer);
  layer->format = input.lists.back().format->OfLayer(input.layer);
  layer->layer_bytes = layer->format.BlockBytes();
  layer->pages.resize(PageCount());
  for (uint64_t i = 0; i < layer->pages.size(); ++i) {
    KvPage& page = layer->pages[i];
    page.bytes = RemotePage();
    page.tokens = pass_.sink_tokens;
    if (i < sinks) continue;
    page.first_position = (i - sinks) * kBlockTokens;
    page.tokens =
        static_cast<uint32_t>(std::min<uint64_t>(kBlockTokens, pass_.tokens - page.first_position));
    if (i == sinks) page.hidden = std::min(pass_.sink_tokens, page.tokens);
  }
  for (const AttentionPart& part : parts) {
    uint64_t i = 0;
    for (const KvPageList& list : part.input.lists) {
      const uint64_t offset = list.format->LayerOffset(input.layer);
      for (const KvPage& page : list.pages) {
        CHECK(i < layer->pages.size()) << i << " pages of " << layer->pages.size();
        KvPage& here = layer->pages[i++];
        CHECK(here.first_position == page.first_position && here.hidden == page.hidden)
            << "page " << i - 1 << " at " << page.first_position;
        if (page.bytes == RemotePage()) continue;
        here.bytes = page.bytes + offset;
      }
    }
  }
}

// Each new page to the rank that keeps it; most were computed there.
Status RankedAttention::DealNewPages(const AttentionInput& input, LayerPages* layer) {
  const KvFormat& format = *input.lists.back().format;
  const uint64_t sinks = pass_.sink_tokens > 0 ? 1 : 0;
  const uint64_t offset = format.LayerOffset(input.layer);
  std::vector<TransferPtr> transfers;
  for (uint64_t page = pass_.first_token / kBlockTokens + sinks; page < PageCount(); ++page) {
    const uint32_t from = pass_.ComputedBy(page - sinks);
    const uint32_t to = placement_.RankOfPage(page);
    if (from == to) continue;
    if (from == transport_.rank()) {
      transfers.push_back(transport_.Send(to, {layer->pages[page].bytes, layer->layer_bytes}));
    }
    if (to != transport_.rank()) continue;
    std::unique_ptr<Buffer>& block = dealt_[page - sinks];
    if (block == nullptr) {
      ASSIGN_OR_RETURN(block, local_.Allocate(format.BlockBytes(), "KV page of another rank"));
    }
    const std::span<std::byte> bytes(block->data() + offset, layer->layer_bytes);
    transfers.push_back(transport_.Receive(from, bytes));
    layer->pages[page].bytes = bytes.data();
  }
  return WaitAll(transfers);
}

Status RankedAttention::Attend(MatrixView out, MatrixView q, std::span<const AttentionPart> parts) {
  Status status;
  if (pass_.rows == RankedPass::Rows::kAlike) {
    status = AttendAlike(out, q, parts);
  } else {
    LayerPages layer;
    CHECK(parts.size() == pass_.pieces[transport_.rank()].size()) << parts.size() << " pieces";
    FindPages(parts, &layer);
    status = local_.Synchronize();  // pages that were just written, buffers that are used again
    if (status.ok()) status = DealNewPages(parts.front().input, &layer);
    if (status.ok()) {
      status = pass_.rows == RankedPass::Rows::kKeysTravel
                   ? AttendKeysTravel(out, q, parts, layer)
                   : AttendQueriesTravel(out, q, parts, layer);
    }
  }
  // Nobody may go on with transfers whose memory goes away.
  if (!status.ok()) transport_.Abort(status);
  return status;
}

std::span<float> RankedAttention::StatesOf(const Nodes& nodes, const AttentionShape& shape,
                                           uint32_t row, uint32_t rows, uint32_t rank) {
  const uint64_t each = NodeStateFloats(shape, rows);
  return FloatsIn(states_, states_->bytes() / sizeof(float))
      .subspan(nodes.all.size() * NodeStateFloats(shape, row) + nodes.first[rank] * each,
               nodes.Of(rank).size() * each);
}

// The end of every piece's rows; states_ has all nodes of them.
Status RankedAttention::MergePieces(MatrixView out, std::span<const AttentionPart> parts,
                                    const LayerPages& layer, const Nodes& nodes) {
  const auto lists = ListsOver(layer, layer.pages);
  uint32_t row = 0;
  for (const AttentionPart& part : parts) {
    const uint64_t piece = nodes.all.size() * NodeStateFloats(part.input.shape, part.rows);
    const auto states =
        FloatsIn(states_, states_->bytes() / sizeof(float))
            .subspan(nodes.all.size() * NodeStateFloats(part.input.shape, row), piece);
    RETURN_IF_ERROR(nodes_.MergeNodes(out.Rows(row, part.rows), states,
                                      InputOver(part.input, lists), nodes.all));
    row += part.rows;
  }
  return OkStatus();
}

// Step i: this rank's pages to the rank i behind it, those of the rank i before it to here.
Status RankedAttention::PostPages(uint32_t step, const LayerPages& layer,
                                  std::vector<TransferPtr>* sending,
                                  std::vector<TransferPtr>* receiving) {
  const uint32_t ranks = placement_.ranks, me = transport_.rank();
  if (step >= ranks) return OkStatus();
  const uint32_t from = (me + ranks - step) % ranks, to = (me + step) % ranks;
  for (const uint64_t page : PagesFor(me, to)) {
    sending->push_back(transport_.Send(to, {layer.pages[page].bytes, layer.layer_bytes}));
  }
  const auto wanted = PagesFor(from, me);
  std::unique_ptr<Buffer>& arriving = arriving_[step % 2];
  RETURN_IF_ERROR(Grow(&arriving, wanted.size() * layer.layer_bytes));
  for (size_t i = 0; i < wanted.size(); ++i) {
    const std::span<std::byte> bytes(arriving->data() + i * layer.layer_bytes, layer.layer_bytes);
    receiving->push_back(transport_.Receive(from, bytes));
  }
  transport_.Start();
  return OkStatus();
}

// The pages of step i: this rank's own, or those that have arrived.
std::vector<KvPage> RankedAttention::PagesOfStep(uint32_t step, const LayerPages& layer) const {
  const uint32_t ranks = placement_.ranks, me = transport_.rank();
  std::vector<KvPage> here = layer.pages;
  for (uint64_t page = pass_.sink_tokens > 0 ? 1 : 0; page < here.size(); ++page) {
    if (step > 0 || placement_.RankOfPage(page) != me) here[page].bytes = RemotePage();
  }
  if (step == 0) return here;
  const std::byte* next = arriving_[step % 2]->data();
  for (const uint64_t page : PagesFor((me + ranks - step) % ranks, me)) {
    here[page].bytes = next;
    next += layer.layer_bytes;
  }
  return here;
}

// In step i a rank computes over the pages of the rank i before it, while those of the next one
// arrive. Every two ranks exchange directly: the bytes of a ring, without its detours.
Status RankedAttention::AttendKeysTravel(MatrixView out, MatrixView q,
                                         std::span<const AttentionPart> parts,
                                         const LayerPages& layer) {
  const uint32_t ranks = placement_.ranks, me = transport_.rank();
  const Nodes nodes = NodesOver(layer.pages.size());
  RETURN_IF_ERROR(
      Grow(&states_,
           nodes.all.size() * NodeStateFloats(parts.front().input.shape, q.rows) * sizeof(float)));
  std::vector<TransferPtr> sending, receiving;
  // Telling a transport of hundreds of pages takes a millisecond, which a device can compute in.
  const bool computes_meanwhile = nodes_.stream() != nullptr;
  if (computes_meanwhile) {
    const auto next = PagesFor((me + ranks - 1) % ranks, me);
    RETURN_IF_ERROR(Grow(&arriving_[1], next.size() * layer.layer_bytes));
  } else {
    RETURN_IF_ERROR(PostPages(1, layer, &sending, &receiving));
  }
  for (uint32_t step = 0; step < ranks; ++step) {
    const uint32_t source = (me + ranks - step) % ranks;
    if (step > 0) {
      RETURN_IF_ERROR(WaitAll(receiving));
      // The next pages take the place of those that the last step computes over.
      if (step > 1 && step + 1 < ranks) RETURN_IF_ERROR(local_.Synchronize());
      RETURN_IF_ERROR(PostPages(step + 1, layer, &sending, &receiving));
    }
    const std::vector<KvPage> here = PagesOfStep(step, layer);
    const auto lists = ListsOver(layer, here);
    std::vector<AttentionPart> runs;
    std::vector<std::span<float>> states;
    uint32_t row = 0;
    for (const AttentionPart& part : parts) {
      runs.push_back({InputOver(part.input, lists), part.rows});
      states.push_back(StatesOf(nodes, part.input.shape, row, part.rows, source));
      row += part.rows;
    }
    // Not behind all rows: a transfer needs multiprocessors, and gets some between two launches.
    const size_t before = step == 0 && computes_meanwhile ? (runs.size() + 1) / 2 : 0;
    uint32_t rows_before = 0;
    for (size_t i = 0; i < before; ++i) rows_before += runs[i].rows;
    if (before > 0) {
      RETURN_IF_ERROR(nodes_.AttendNodesOfParts(std::span(states).first(before),
                                                q.Rows(0, rows_before),
                                                std::span(runs).first(before), nodes.Of(source)));
      RETURN_IF_ERROR(PostPages(1, layer, &sending, &receiving));
    }
    RETURN_IF_ERROR(nodes_.AttendNodesOfParts(std::span(states).subspan(before),
                                              q.Rows(rows_before, q.rows - rows_before),
                                              std::span(runs).subspan(before), nodes.Of(source)));
  }
  RETURN_IF_ERROR(WaitAll(sending));
  return MergePieces(out, parts, layer, nodes);
}

MatrixView RankedAttention::QueriesOf(uint32_t rank, uint32_t cols) {
  uint32_t first = 0, rows = 0;
  for (uint32_t r = 0; r <= rank; ++r) {
    first += rows;
    rows = 0;
    for (const RowPiece& piece : pass_.pieces[r]) rows += piece.rows;
  }
  return {reinterpret_cast<float*>(queries_->data()) + size_t{first} * cols, rows, cols, cols};
}

// Queries to everybody, everybody's to here.
Status RankedAttention::PostQueries(MatrixView q, std::vector<TransferPtr>* arriving,
                                    std::vector<TransferPtr>* transfers) {
  const uint32_t ranks = placement_.ranks, me = transport_.rank();
  const auto bytes_of = [&](uint32_t rank) {
    const MatrixView view = QueriesOf(rank, q.cols);
    return std::as_writable_bytes(std::span(view.data, size_t{view.rows} * view.cols));
  };
  local_.CopyMatrix(QueriesOf(me, q.cols), q);
  RETURN_IF_ERROR(local_.Synchronize());
  arriving->resize(ranks);
  for (uint32_t step = 1; step < ranks; ++step) {
    const uint32_t from = (me + ranks - step) % ranks, to = (me + step) % ranks;
    transfers->push_back(transport_.Send(to, bytes_of(me)));
    (*arriving)[from] = transport_.Receive(from, bytes_of(from));
  }
  transport_.Start();
  return OkStatus();
}

void RankedAttention::PostAnswers(const AttentionShape& shape, const Nodes& nodes,
                                  std::vector<TransferPtr>* transfers) {
  const uint32_t ranks = placement_.ranks, me = transport_.rank();
  const float* next = reinterpret_cast<const float*>(answers_->data());
  for (uint32_t step = 1; step < ranks; ++step) {
    const uint32_t other = (me + ranks - step) % ranks;
    for (const RowPiece& piece : pass_.pieces[other]) {
      const std::span states(next, nodes.Of(me).size() * NodeStateFloats(shape, piece.rows));
      if (!states.empty()) transfers->push_back(transport_.Send(other, BytesOf(states)));
      next += states.size();
    }
    uint32_t row = 0;
    for (const RowPiece& piece : pass_.pieces[me]) {
      const auto into = StatesOf(nodes, shape, row, piece.rows, other);
      row += piece.rows;
      if (into.empty()) continue;
      transfers->push_back(transport_.Receive(other, std::as_writable_bytes(into)));
    }
  }
  transport_.Start();
}

// Each rank computes the nodes it has for everybody's rows, its own last, while the states of the
// others travel back. A transfer of a device waits for those before it: so answers are posted when
// they are there, and not with the queries.
Status RankedAttention::AttendQueriesTravel(MatrixView out, MatrixView q,
                                            std::span<const AttentionPart> parts,
                                            const LayerPages& layer) {
  const uint32_t ranks = placement_.ranks, me = transport_.rank();
  const AttentionShape& shape = parts.front().input.shape;
  const Nodes nodes = NodesOver(layer.pages.size());
  const size_t own_nodes = nodes.Of(me).size();
  uint32_t all_rows = 0;
  for (const auto& pieces : pass_.pieces) {
    for (const RowPiece& piece : pieces) all_rows += piece.rows;
  }
  constexpr uint64_t kFloat = sizeof(float);
  RETURN_IF_ERROR(Grow(&queries_, uint64_t{all_rows} * q.cols * kFloat));
  RETURN_IF_ERROR(Grow(&states_, nodes.all.size() * NodeStateFloats(shape, q.rows) * kFloat));
  RETURN_IF_ERROR(Grow(&answers_, own_nodes * NodeStateFloats(shape, all_rows - q.rows) * kFloat));
  std::vector<TransferPtr> transfers, arriving;
  RETURN_IF_ERROR(PostQueries(q, &arriving, &transfers));
  const auto lists = ListsOver(layer, layer.pages);
  AttentionInput input = InputOver(parts.front().input, lists);
  const auto answers = FloatsIn(answers_, answers_->bytes() / kFloat);
  size_t answered = 0;
  for (uint32_t step = 1; step <= ranks; ++step) {
    const uint32_t source = (me + ranks - step) % ranks;
    if (source != me) {
      RETURN_IF_ERROR(arriving[source]->Wait());
    } else {
      RETURN_IF_ERROR(local_.Synchronize());
      PostAnswers(shape, nodes, &transfers);
    }
    uint32_t row = 0;
    for (const RowPiece& piece : pass_.pieces[source]) {
      const size_t floats = own_nodes * NodeStateFloats(shape, piece.rows);
      const auto states = source == me ? StatesOf(nodes, shape, row, piece.rows, me)
                                       : answers.subspan(answered, floats);
      input.first_position = piece.first_position;
      RETURN_IF_ERROR(nodes_.AttendNodes(states, QueriesOf(source, q.cols).Rows(row, piece.rows),
                                         input, nodes.Of(me)));
      row += piece.rows;
      if (source != me) answered += floats;
    }
  }
  RETURN_IF_ERROR(WaitAll(transfers));
  return MergePieces(out, parts, layer, nodes);
}

}  // namespace corpusd
