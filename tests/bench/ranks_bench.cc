// ranks_bench: attention of one long text over several CUDA devices beside one of them, in one run:
// the engine's own schedules, kernels and pages (engine/ranks over the CUDA backend and NCCL).
// Scout's shape, bfloat16 pages, random numbers.
//   ranks_bench [devices=N] [check] [link] [prefill=TOKENS,SEGMENT]... [segment=ROWS,HISTORY]
//               [decode=TOKENS,LAYERS] [memory=TOKENS,ROWS] [tensor=LAYERS,ROWS[,VOCABULARY]]
//               [grid=LAYERS,TOKENS[,VOCABULARY]]
// devices: of what follows, two unless it says so ("two" stands for them); link and memory are of
// two. SEGMENT: rows of all devices in one go; memory: what one device takes for so many tokens,
// and each of two for twice as many; tensor: so many of Scout's layers, weights of 4 bits shared by
// the devices beside one that has all; grid: see ranks_grid.h. Prints one JSON object a line.
#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "engine/backend/cpu_backend.h"
#include "engine/ranks/placement.h"
#include "tests/bench/rank_devices.h"
#include "tests/bench/ranks_grid.h"
#include "tests/bench/ranks_tensor.h"

namespace corpusd {
namespace {

using Json = nlohmann::json;
using Travel = RankedPass::Rows;
constexpr uint32_t kUnit = 8192;  // tokens: where rows are cut
constexpr uint64_t kQuerySeed = uint64_t{1} << 40;

// The largest difference, in roots of the mean square of `b`.
double Difference(std::span<const float> a, std::span<const float> b) {
  double most = 0, square = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(double{a[i]} - b[i]));
    square += double{b[i]} * b[i];
  }
  return most / std::sqrt(square / static_cast<double>(a.size()));
}

// Rows [first, end) dealt to all ranks, over the text up to `end`.
RankedPass PassOver(uint32_t ranks, uint64_t first, uint64_t end, Travel rows) {
  RankedPass pass;
  pass.rows = rows;
  pass.first_token = first;
  pass.tokens = end;
  const uint64_t unit = std::min<uint64_t>(kUnit, (end - first) / (2 * ranks));
  pass.pieces = DealRows(first, end, static_cast<uint32_t>(unit), ranks, kUnit);
  return pass;
}

// What one rank attends with: its rows, and the pages it has.
class DealtRows {
 public:
  DealtRows(RankDevices& devices, uint32_t rank, const RankedPass& pass, const DeviceText& text)
      : ranked_(devices.ranked(rank)),
        pass_(pass),
        own_(pass.pieces[rank]),
        format_(text.format),
        rows_(devices.backend(rank), RowCount(own_), 0) {
    CudaBackend& backend = devices.backend(rank);
    const Placement placement = ranked_.attention().placement();
    const auto has = [&](uint64_t page) {
      const uint64_t position = page * kBlockTokens;
      return placement.RankOfPage(page) == rank ||
             std::any_of(own_.begin(), own_.end(), [&](const RowPiece& piece) {
               return position >= piece.first_position && position < piece.end();
             });
    };
    uint32_t row = 0;
    for (const RowPiece& piece : own_) {
      pages_.push_back(text.Seen(piece.end(), has));
      FillQueries(backend, rows_.q.Rows(row, piece.rows), kQuerySeed + piece.first_position);
      row += piece.rows;
    }
    Require(backend.Synchronize());
  }

  void Attend() {
    std::vector<KvPageList> lists;
    std::vector<AttentionPart> parts;
    for (const auto& pages : pages_) lists.push_back({&format_, pages});
    for (size_t i = 0; i < lists.size(); ++i) {
      parts.push_back({InputOf({&lists[i], 1}, own_[i].first_position), own_[i].rows});
    }
    ranked_.Begin(pass_, WholeLayers(1));
    ranked_.AttentionOfParts(rows_.out, rows_.q, parts);
  }
  // Into the place that the rows have among those of all ranks; of one rank after the other.
  void CopyOut(CudaBackend& backend, uint64_t first, std::vector<float>* all) const {
    const std::vector<float> host = rows_.ReadOut(backend);
    size_t row = 0;
    for (const RowPiece& piece : own_) {
      std::copy_n(
          host.begin() + static_cast<ptrdiff_t>(row * rows_.out.cols),
          size_t{piece.rows} * rows_.out.cols,
          all->begin() + static_cast<ptrdiff_t>((piece.first_position - first) * rows_.out.cols));
      row += piece.rows;
    }
  }

 private:
  static uint32_t RowCount(const std::vector<RowPiece>& pieces) {
    uint32_t rows = 0;
    for (const RowPiece& piece : pieces) rows += piece.rows;
    return rows;
  }

  RankedBackend& ranked_;
  const RankedPass pass_;
  const std::vector<RowPiece> own_;
  const KvFormat format_;
  const Rows rows_;
  std::vector<std::vector<KvPage>> pages_;
};

// The same text on every device.
std::vector<DeviceText> TextsOf(RankDevices& devices, uint32_t layers, uint64_t tokens,
                                const std::function<bool(uint32_t, uint64_t)>& here) {
  std::vector<DeviceText> texts(devices.size());
  devices.Each([&](uint32_t r) {
    texts[r] = RandomText(devices.backend(r), layers, tokens,
                          [&](uint64_t page) { return here(r, page); });
  });
  return texts;
}

// Rows [first, tokens) as all ranks compute them together; of the text they have what is theirs.
std::vector<float> AttendTogether(RankDevices& devices, const std::vector<DeviceText>& texts,
                                  uint64_t first, uint64_t tokens, Travel travel) {
  const auto count = static_cast<uint32_t>(tokens - first);
  std::vector<float> all(size_t{count} * kScout.q_heads * kScout.head_dim);
  if (travel == Travel::kAlike) {
    devices.Each([&](uint32_t r) {
      const Placement placement = devices.ranked(r).attention().placement();
      const auto seen =
          texts[r].Seen(tokens, [&](uint64_t p) { return placement.RankOfPage(p) == r; });
      const KvPageList own{&texts[r].format, seen};
      const Rows same(devices.backend(r), count, kQuerySeed + first);
      devices.ranked(r).Begin({}, WholeLayers(1));
      devices.ranked(r).Attention(same.out, same.q, InputOf({&own, 1}, first));
      Require(devices.ranked(r).Synchronize());
      if (r == 1) all = same.ReadOut(devices.backend(r));
    });
    return all;
  }
  const RankedPass pass = PassOver(devices.size(), first, tokens, travel);
  std::vector<std::unique_ptr<DealtRows>> dealt(devices.size());
  devices.Each([&](uint32_t r) {
    dealt[r] = std::make_unique<DealtRows>(devices, r, pass, texts[r]);
    dealt[r]->Attend();
    Require(devices.ranked(r).Synchronize());
  });
  for (uint32_t r = 0; r < devices.size(); ++r) {
    dealt[r]->CopyOut(devices.backend(r), first, &all);
  }
  return all;
}

// The same rows, or the first of them, on the CPU, over the bytes of the device.
std::vector<float> AttendOnCpu(CudaBackend& device, const DeviceText& text, const Rows& rows,
                               uint32_t count, uint64_t first) {
  const auto cpu = Require(MakeCpuBackend({.threads = 16}));
  const uint64_t block = text.format.BlockBytes();
  const auto bytes = Require(cpu->Allocate(text.pages.size() * block, "pages"));
  std::vector<KvPage> pages = text.pages;
  for (size_t i = 0; i < pages.size(); ++i) {
    Require(device.Copy(bytes->data() + i * block, pages[i].bytes, block));
    pages[i].bytes = bytes->data() + i * block;
  }
  const KvPageList list{&text.format, pages};
  const uint64_t floats = uint64_t{count} * rows.q.cols;
  const auto q = Require(cpu->Allocate(floats * sizeof(float), "queries"));
  const auto out = Require(cpu->Allocate(floats * sizeof(float), "outputs"));
  Require(device.Copy(q->data(), rows.q_memory->data(), floats * sizeof(float)));
  cpu->Attention(out->Matrix(count, rows.q.cols), q->Matrix(count, rows.q.cols),
                 InputOf({&list, 1}, first));
  const auto* const values = reinterpret_cast<const float*>(out->data());
  return {values, values + floats};
}

// Rows computed in every way, against one device that takes all pages in one go, one that takes
// them by nodes, and the CPU.
void Check(RankDevices& devices) {
  constexpr uint64_t kTokens = 40960;  // five spans
  constexpr uint32_t kMany = 4096, kFew = 3, kOnCpu = 24;
  const auto texts = TextsOf(devices, 1, kTokens, [](uint32_t, uint64_t) { return true; });
  CudaBackend& one = devices.backend(0);
  const KvPageList list{&texts[0].format, texts[0].pages};
  for (const uint32_t count : {kMany, kFew}) {
    const uint64_t first = kTokens - count;
    const Rows rows(one, count, kQuerySeed + first);
    one.Attention(rows.out, rows.q, InputOf({&list, 1}, first));
    const auto whole = rows.ReadOut(one);
    const auto states =
        Require(one.Allocate(NodeStateFloats(kScout, count) * sizeof(float), "states"));
    AttendInNodes(one, rows, InputOf({&list, 1}, first), *states);
    const auto in_nodes = rows.ReadOut(one);
    const auto on_cpu = AttendOnCpu(one, texts[0], rows, std::min(count, kOnCpu), first);
    Json record = {
        {"check_rows", count},
        {"tokens", kTokens},
        {"nodes_against_whole", Difference(in_nodes, whole)},
        {"whole_against_cpu", Difference(std::span(whole).first(on_cpu.size()), on_cpu)}};
    for (const auto& [name, travel] : {std::pair{"keys_travel", Travel::kKeysTravel},
                                       {"queries_travel", Travel::kQueryTravel},
                                       {"alike", Travel::kAlike}}) {
      if ((travel == Travel::kAlike) != (count == kFew)) continue;
      const auto all = AttendTogether(devices, texts, first, kTokens, travel);
      record[name] = {{"same_bits_as_one_in_nodes",
                       std::memcmp(all.data(), in_nodes.data(), all.size() * sizeof(float)) == 0},
                      {"against_whole", Difference(all, whole)}};
    }
    Print(record);
  }
}

struct Compared {
  std::vector<double> one, two, nodes;
};

// One layer's attention of rows [first, end) on one device, and dealt to all.
void CompareRows(RankDevices& devices, const std::vector<DeviceText>& texts, uint64_t first,
                 uint64_t end, Travel travel, int rounds, bool in_nodes, Compared* compared) {
  CudaBackend& one = devices.backend(0);
  const auto pages = texts[0].Seen(end, [](uint64_t) { return true; });
  const KvPageList list{&texts[0].format, pages};
  const RankedPass pass = PassOver(devices.size(), first, end, travel);
  const auto count = static_cast<uint32_t>(end - first);
  for (int round = rounds > 1 ? -1 : 0; round < rounds; ++round) {
    const auto keep = [&](std::vector<double>* into, double seconds) {
      if (round >= 0) into->push_back(seconds);
    };
    {
      const Rows rows(one, count, kQuerySeed + first);
      keep(&compared->one, SecondsOf(one, [&] {
        one.Attention(rows.out, rows.q, InputOf({&list, 1}, first));
      }));
      if (in_nodes) {
        const auto states = Require(one.Allocate(NodeStateFloats(kScout, count) * 4, "states"));
        keep(&compared->nodes, SecondsOf(one, [&] {
          AttendInNodes(one, rows, InputOf({&list, 1}, first), *states);
        }));
      }
    }
    std::vector<std::unique_ptr<DealtRows>> dealt(devices.size());
    devices.Each(
        [&](uint32_t r) { dealt[r] = std::make_unique<DealtRows>(devices, r, pass, texts[r]); });
    keep(&compared->two, devices.Seconds([&](uint32_t r) { dealt[r]->Attend(); }));
  }
}

double TeraflopOf(uint64_t first, uint64_t end) {
  const double rows = static_cast<double>(end - first);
  return 4.0 * kScout.q_heads * kScout.head_dim * rows * (static_cast<double>(first) + rows / 2) /
         1e12;
}

void Prefill(RankDevices& devices, uint64_t tokens, uint64_t segment, int rounds) {
  const auto texts = TextsOf(devices, 1, tokens, [](uint32_t, uint64_t) { return true; });
  Compared all;
  for (uint64_t first = 0; first < tokens; first += segment) {
    Compared compared;
    CompareRows(devices, texts, first, std::min(first + segment, tokens), Travel::kKeysTravel,
                rounds, /*in_nodes=*/tokens <= segment, &compared);
    for (const auto& [into, from] : {std::pair{&all.one, &compared.one},
                                     {&all.two, &compared.two},
                                     {&all.nodes, &compared.nodes}}) {
      into->resize(from->size());
      for (size_t i = 0; i < from->size(); ++i) (*into)[i] += (*from)[i];
    }
  }
  Json record = {{"prefill_tokens", tokens},
                 {"segment_rows", segment},
                 {"one_ms", Median(all.one) * 1e3},
                 {"one_spread_ms", Spread(all.one)},
                 {"two_ms", Median(all.two) * 1e3},
                 {"two_spread_ms", Spread(all.two)},
                 {"one_tflop_per_s", TeraflopOf(0, tokens) / Median(all.one)},
                 {"devices", devices.size()},
                 {"efficiency", Median(all.one) / (devices.size() * Median(all.two))}};
  if (!all.nodes.empty()) {
    record["one_in_nodes_ms"] = Median(all.nodes) * 1e3;
    record["efficiency_of_one_in_nodes"] = Median(all.nodes) / (devices.size() * Median(all.two));
  }
  Print(record);
}

void Segment(RankDevices& devices, uint64_t rows, uint64_t history, int rounds) {
  const uint64_t tokens = rows + history;
  const auto texts = TextsOf(devices, 1, tokens, [](uint32_t, uint64_t) { return true; });
  for (const auto& [name, travel] :
       {std::pair{"queries", Travel::kQueryTravel}, {"keys", Travel::kKeysTravel}}) {
    Compared compared;
    CompareRows(devices, texts, history, tokens, travel, rounds, /*in_nodes=*/false, &compared);
    Print({{"segment_rows", rows},
           {"history_tokens", history},
           {"travels", name},
           {"one_ms", Median(compared.one) * 1e3},
           {"two_ms", Median(compared.two) * 1e3},
           {"two_spread_ms", Spread(compared.two)},
           {"one_tflop_per_s", TeraflopOf(history, tokens) / Median(compared.one)},
           {"devices", devices.size()},
           {"efficiency", Median(compared.one) / (devices.size() * Median(compared.two))}});
  }
}

// The messages of a decode step and nothing else.
void ExchangeStates(RankDevices& devices, uint32_t rank, const Rows& rows, uint32_t layers) {
  Transport& transport = devices.transport(rank);
  const std::span from(rows.q.data, rows.q.cols), to(rows.out.data, rows.out.cols);
  std::vector<TransferPtr> transfers;
  for (uint32_t layer = 0; layer < layers; ++layer) {
    transfers.clear();
    (void)transport.RunOn(devices.backend(rank).stream());
    for (uint32_t step = 1; step < devices.size(); ++step) {
      const uint32_t after = (rank + step) % devices.size();
      const uint32_t before = (rank + devices.size() - step) % devices.size();
      transfers.push_back(transport.Send(after, std::as_bytes(from)));
      transfers.push_back(transport.Receive(before, std::as_writable_bytes(to)));
    }
    (void)transport.RunOn(nullptr);
  }
  Require(WaitAll(transfers));
}

// One row a step; the pages of all layers are there.
void Decode(RankDevices& devices, uint64_t tokens, uint32_t layers, int steps) {
  const double before = UsedGib(1);
  const Placement placement = devices.ranked(1).attention().placement();
  const auto texts = TextsOf(devices, layers, tokens, [&](uint32_t rank, uint64_t page) {
    return rank == 0 || placement.RankOfPage(page) == rank;
  });
  std::vector<std::vector<KvPage>> seen(devices.size());
  std::vector<KvPageList> lists(devices.size());
  std::vector<std::optional<Rows>> rows(devices.size());
  devices.Each([&](uint32_t r) {
    seen[r] = texts[r].Seen(tokens, [&](uint64_t p) { return placement.RankOfPage(p) == r; });
    lists[r] = {&texts[r].format, seen[r]};
    rows[r].emplace(devices.backend(r), 1, kQuerySeed);
  });
  const KvPageList whole{&texts[0].format, texts[0].pages};
  const auto step = [&](Backend& backend, uint32_t r, const KvPageList& list) {
    for (uint32_t layer = 0; layer < layers; ++layer) {
      const AttentionInput input = InputOf({&list, 1}, tokens - 1, layer);
      backend.AttentionEach(rows[r]->out, rows[r]->q, {&input, 1});
    }
  };
  devices.Each([&](uint32_t r) { devices.ranked(r).Begin({}, WholeLayers(layers)); });
  const auto states =
      Require(devices.backend(0).Allocate(NodeStateFloats(kScout, 1) * 4, "states"));
  std::vector<double> one, nodes, two, exchange;
  for (int i = -3; i < steps; ++i) {
    const double alone = SecondsOf(devices.backend(0), [&] { step(devices.backend(0), 0, whole); });
    const double in_nodes = SecondsOf(devices.backend(0), [&] {
      for (uint32_t layer = 0; layer < layers; ++layer) {
        AttendInNodes(devices.backend(0), *rows[0], InputOf({&whole, 1}, tokens - 1, layer),
                      *states);
      }
    });
    const double together =
        devices.Seconds([&](uint32_t r) { step(devices.ranked(r), r, lists[r]); });
    const double exchanged =
        devices.Seconds([&](uint32_t r) { ExchangeStates(devices, r, *rows[r], layers); });
    if (i < 0) continue;
    one.push_back(alone);
    nodes.push_back(in_nodes);
    two.push_back(together);
    exchange.push_back(exchanged);
  }
  devices.Each([&](uint32_t r) { devices.ranked(r).End(); });
  const double bytes = static_cast<double>(texts[0].format.BlockBytes() * texts[0].pages.size());
  Print({{"decode_tokens", tokens},
         {"layers", layers},
         {"one_ms", Median(one) * 1e3},
         {"one_spread_ms", Spread(one)},
         {"one_in_nodes_ms", Median(nodes) * 1e3},
         {"two_ms", Median(two) * 1e3},
         {"two_spread_ms", Spread(two)},
         {"one_tb_per_s", bytes / Median(one) / 1e12},
         {"devices", devices.size()},
         {"step_over_share", devices.size() * Median(two) / Median(one)},
         {"exchange_ms", Median(exchange) * 1e3},
         {"exchange_share", Median(exchange) / Median(two)},
         {"gib_a_rank", UsedGib(1) - before},
         {"gib_one_pages", bytes / (uint64_t{1} << 30)}});
}

// The last rows of a text over all layers' pages: of one device, then twice the text and the rows
// over both. Memory of a backend is not given back, so each device is used once.
void Memory(RankDevices& devices, uint64_t tokens, uint32_t rows) {
  const auto used = [&](int device, const std::function<void()>& work) {
    const double before = UsedGib(device);
    work();
    return UsedGib(device) - before;
  };
  const double one = used(0, [&] {
    const auto text =
        RandomText(devices.backend(0), kScoutWholeLayers, tokens, [](uint64_t) { return true; });
    const Rows last(devices.backend(0), rows, kQuerySeed);
    const KvPageList all{&text.format, text.pages};
    devices.backend(0).Attention(last.out, last.q, InputOf({&all, 1}, tokens - rows));
    Require(devices.backend(0).Synchronize());
  });
  const RankedPass pass = PassOver(2, 2 * (tokens - rows), 2 * tokens, Travel::kQueryTravel);
  const Placement placement = devices.ranked(1).attention().placement();
  const double two = used(1, [&] {
    const auto texts =
        TextsOf(devices, kScoutWholeLayers, 2 * tokens, [&](uint32_t rank, uint64_t page) {
          return placement.RankOfPage(page) == rank ||
                 (page * kBlockTokens >= pass.first_token && pass.ComputedBy(page) == rank);
        });
    devices.Each([&](uint32_t r) {
      DealtRows dealt(devices, r, pass, texts[r]);
      dealt.Attend();
      Require(devices.ranked(r).Synchronize());
    });
  });
  Print({{"memory_tokens_a_rank", tokens},
         {"rows_a_rank", rows},
         {"layers", kScoutWholeLayers},
         {"gib_one", one},
         {"gib_a_rank_of_two", two},
         {"of_one", two / one}});
}

// What one direction of the link carries while the other does, too.
void Link(RankDevices& devices) {
  constexpr uint64_t kBytes = uint64_t{1} << 30;
  std::vector<std::unique_ptr<Buffer>> from(2), to(2);
  devices.Each([&](uint32_t r) {
    from[r] = Require(devices.backend(r).Allocate(kBytes, "a message"));
    to[r] = Require(devices.backend(r).Allocate(kBytes, "a message"));
  });
  std::vector<double> seconds;
  for (int i = 0; i < 6; ++i) {
    seconds.push_back(devices.Seconds([&](uint32_t r) {
      std::vector<TransferPtr> transfers;
      transfers.push_back(devices.transport(r).Send(1 - r, {from[r]->data(), kBytes}));
      transfers.push_back(devices.transport(r).Receive(1 - r, {to[r]->data(), kBytes}));
      Require(WaitAll(transfers));
    }));
  }
  Print({{"link_gb_per_s_each_way", static_cast<double>(kBytes) / Median(seconds) / 1e9}});
}

std::vector<uint32_t> NumbersOf(const std::string& argument) {
  std::vector<uint32_t> numbers;
  for (size_t at = argument.find('='); at != std::string::npos; at = argument.find(',', at + 1)) {
    numbers.push_back(static_cast<uint32_t>(std::strtoul(argument.c_str() + at + 1, nullptr, 10)));
  }
  numbers.resize(3);
  return numbers;
}

int Main(int count, char** arguments) {
  if (CudaDeviceCount() < 2) {
    std::fprintf(stderr, "ranks_bench needs two CUDA devices\n");
    return 1;
  }
  const double before = UsedGib(1);
  uint32_t node_width = CudaBackend::kNodeWidth;
  if (const char* const asked = std::getenv("CORPUSD_NODE_WIDTH")) {
    node_width = static_cast<uint32_t>(std::atoi(asked));
  }
  uint32_t ranks = 2;
  for (int i = 1; i < count; ++i) {
    const std::string what = arguments[i];
    const auto numbers = NumbersOf(what);
    if (what.starts_with("devices=")) ranks = numbers[0];
    if (what.starts_with("tensor=")) MeasureTensor(numbers[0], numbers[1], numbers[2], ranks);
    if (what.starts_with("grid=")) MeasureGrid(numbers[0], numbers[1], numbers[2]);
    if (what.starts_with("devices=") || what.starts_with("tensor=") || what.starts_with("grid=")) {
      continue;
    }
    RankDevices devices(what == "link" || what.starts_with("memory=") ? 2 : ranks, node_width);
    cudaDeviceProp properties{};
    (void)cudaGetDeviceProperties(&properties, 0);
    Print({{"run", what}, {"device", properties.name}, {"node_width", node_width}});
    if (what == "check") Check(devices);
    if (what == "link") Link(devices);
    if (what.starts_with("prefill=")) {
      Prefill(devices, numbers[0], numbers[1], numbers[0] > (1u << 19) ? 1 : 5);
    }
    if (what.starts_with("segment=")) Segment(devices, numbers[0], numbers[1], 3);
    if (what.starts_with("memory=")) Memory(devices, numbers[0], numbers[1]);
    if (what.starts_with("decode=")) Decode(devices, numbers[0], numbers[1], 30);
    Print({{"used_gib_of_device_1", UsedGib(1) - before}});
  }
  return 0;
}

}  // namespace
}  // namespace corpusd

int main(int count, char** arguments) { return corpusd::Main(count, arguments); }
