// engine/ranks/ranked_attention.h -- attention over a text whose pages lie with several ranks. All
// ranks call alike, layer by layer, each with its rows. Every node of merge_order.h is computed
// from its pages by one rank, whole, and nodes are merged in the order of the text: so the bits are
// those of one rank that has all pages, however many ranks there are and whatever travels. Pages
// travel as they are stored, queries and states in float32: nothing is rounded on the way. One
// thread.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "engine/backend/node_attention.h"
#include "engine/ranks/placement.h"
#include "engine/ranks/transport.h"

namespace corpusd {

// Stands for the bytes of a page that lies with another rank. Not to be read.
const std::byte* RemotePage();

// What a call of the model is about, the same on all ranks.
struct RankedPass {
  enum class Rows : uint8_t {
    kAlike,        // all ranks have the same rows: a question, a decode, what is too short to deal
    kKeysTravel,   // rows are dealt; each rank gets all pages it needs, while it computes (pass-KV)
    kQueryTravel,  // rows are dealt; queries go to where the pages are (pass-Q)
  };
  Rows rows = Rows::kAlike;
  std::vector<std::vector<RowPiece>> pieces;  // [ranks], ascending, of dealt rows; none is empty
  uint64_t first_token = 0;                   // of the new ones; begins a page
  uint64_t tokens = 0;                        // in all, after the pass
  uint32_t sink_tokens = 0;                   // of the page of exact first tokens, or none

  // The rank that computes a new block, with all its layers; of alike rows the first, among all.
  uint32_t ComputedBy(uint64_t block) const;
};

class RankedAttention {
 public:
  // local: computes this rank's share; both must outlive this.
  RankedAttention(Backend& local, Transport& transport);

  const Placement& placement() const { return placement_; }
  // REQUIRES: pages of the history lie where `placement` says, the others with who computes them.
  void Begin(const RankedPass& pass);
  // parts: the pieces of this rank, or all rows of a kAlike pass. Whatever has gone wrong with the
  // transport comes back; `out` says nothing then.
  Status Attend(MatrixView out, MatrixView q, std::span<const AttentionPart> parts);

  // Before a layer that sees a window attends to the pages of this rank: brings what the begin of
  // each dealt piece sees of rows before it, computed in this pass by whichever rank, to where the
  // piece's pages are. parts: the pieces of this rank; those pages are the backend's to write.
  Status ShareWindow(std::span<const AttentionPart> parts, uint32_t window_tokens);

  // New pages that were computed elsewhere and belong here, by block of the text; all layers have
  // come when the pass is over.
  std::map<uint64_t, std::unique_ptr<Buffer>> TakeDealt() { return std::move(dealt_); }

  // Waits for what was left to a device's stream, and says what has gone wrong with it.
  Status Await();

 private:
  // One layer of all pages, as far as they are at hand; its formats say one layer.
  struct LayerPages {
    KvFormat sink_format, format;
    uint64_t layer_bytes = 0;
    std::vector<KvPage> pages;  // RemotePage() where they are not
  };
  // The nodes of all ranks, and where each rank's begin.
  struct Nodes {
    std::vector<MergeNode> all;
    std::vector<size_t> first;  // [ranks + 1]
    std::span<const MergeNode> Of(uint32_t rank) const {
      return std::span(all).subspan(first[rank], first[rank + 1] - first[rank]);
    }
  };

  Status Grow(std::unique_ptr<Buffer>* buffer, uint64_t bytes);
  // The first floats of a buffer.
  static std::span<float> FloatsIn(const std::unique_ptr<Buffer>& buffer, uint64_t count);
  // width: of the widest that are not divided.
  Nodes NodesOver(uint64_t pages, uint32_t width = 1) const;
  // The states of others, of a call over parts, [nodes][NodeStateFloats] of each.
  std::vector<TransferPtr> ExchangeStates(std::span<const Nodes> nodes,
                                          std::span<const std::span<float>> states);
  uint64_t PageCount() const;
  uint64_t EndOfRows(uint32_t rank) const { return pass_.pieces[rank].back().end(); }
  std::vector<uint64_t> PagesFor(uint32_t holder, uint32_t reader) const;
  void FindPages(std::span<const AttentionPart> parts, LayerPages* layer) const;
  Status DealNewPages(const AttentionInput& input, LayerPages* layer);
  std::vector<KvPageList> ListsOver(const LayerPages& layer, std::span<const KvPage> pages) const;

  void CheckKept(const AttentionInput& input) const;
  Status AttendAlike(MatrixView out, MatrixView q, std::span<const AttentionPart> parts);
  Status AttendKeysTravel(MatrixView out, MatrixView q, std::span<const AttentionPart> parts,
                          const LayerPages& layer);
  Status AttendQueriesTravel(MatrixView out, MatrixView q, std::span<const AttentionPart> parts,
                             const LayerPages& layer);
  // Of rows [row, row + rows) of this rank, one piece: the states of a rank's nodes in states_,
  // [pieces][all nodes][NodeStateFloats].
  std::span<float> StatesOf(const Nodes& nodes, const AttentionShape& shape, uint32_t row,
                            uint32_t rows, uint32_t rank);
  Status MergePieces(MatrixView out, std::span<const AttentionPart> parts, const LayerPages& layer,
                     const Nodes& nodes);
  Status PostPages(uint32_t step, const LayerPages& layer, std::vector<TransferPtr>* sending,
                   std::vector<TransferPtr>* receiving);
  std::vector<KvPage> PagesOfStep(uint32_t step, const LayerPages& layer) const;
  MatrixView QueriesOf(uint32_t rank, uint32_t cols);  // in queries_
  Status PostQueries(MatrixView q, std::vector<TransferPtr>* arriving,
                     std::vector<TransferPtr>* transfers);
  // The states of others' rows to them, those of this rank's rows to here.
  void PostAnswers(const AttentionShape& shape, const Nodes& nodes,
                   std::vector<TransferPtr>* transfers);

  Backend& local_;
  NodeAttention& nodes_;
  Transport& transport_;
  const Placement placement_;
  RankedPass pass_;
  std::map<uint64_t, std::unique_ptr<Buffer>> dealt_;
  // In the device's memory; they grow to the largest call and stay. answers: of others' rows.
  std::unique_ptr<Buffer> states_, queries_, answers_, arriving_[2];
  std::vector<TransferPtr> left_;  // to the device's stream, of the last call
};

}  // namespace corpusd
