// AttentionKernels: the inner loops of the CPU's paged attention, one table of them for each instruction set and
// element type.
//
// Work is cut by position, counted from 0: tiles of kTileSlots, splits of kSplitSlots. The queries of one kv_head that
// meet the same tile, heads of its group and consecutive rows, are computed together; a query is a (row, q_head) and
// its index is row * group + head. A tile that lies before a row's window does not exist for the row. Within a split a
// query keeps the state of the online softmax; states of splits are merged by rising position. So the order of
// summation of a query is a function of its position alone.
//
// These functions are compiled with instructions that not every machine has: no function with code in it may be shared
// between the translation units, so this header includes nothing but types (see kernels/CMakeLists.txt).

#ifndef QUIRE_KERNELS_PAGED_ATTENTION_TILE_H_
#define QUIRE_KERNELS_PAGED_ATTENTION_TILE_H_

#include <cstdint>

namespace quire::attention {

inline constexpr int32_t kTileSlots = 64;
inline constexpr int32_t kSplitSlots = 512;
inline constexpr int32_t kMaxHeadDim = 256;
inline constexpr int32_t kMaxKeyDim = 640;  // of latent attention: 512 and 128
inline constexpr int32_t kMaxLanes = 16;    // float32 lanes of the widest instruction set

// Consecutive slots that never cross a block: block sizes are multiples of it.
inline constexpr int32_t kOctet = 8;
inline constexpr int32_t kTileOctets = kTileSlots / kOctet;

// Bytes from a packed query to the next: key_dim float32 and a line, so that the queries do not crowd into few sets of
// the L1 cache.
inline constexpr int32_t kQueryBytes = kMaxKeyDim * 4 + 64;

// Where the octets of a tile are. Behind the last one in use the pointers repeat it.
struct TileSlots {
  const char* k[kTileOctets];  // element (dim 0, first slot of the octet); dim pairs are block_size * 2 elements apart
  const char* v[kTileOctets];  // element (first slot, dim 0); slots are value_stride elements apart
};

// The online softmax of some queries over some positions, in units of log2: with c = scale * log2(e) and m = max of
// their scores, sum = sum_t 2^(c (s[t] - m)), acc = sum_t 2^(c (s[t] - m)) V[t].
struct AttentionState {
  float* max;  // [queries]
  float* sum;  // [queries, kMaxLanes]: lane i counts the positions of that residue; to be added up at the end
  float* acc;  // [queries, dim_stride], the dims in an order of the kernel's own until `finish`
};

struct AttentionTile {
  TileSlots slots;
  TileSlots next;     // what is worth fetching meanwhile; `slots` again if nothing
  int32_t num_slots;  // 1 .. kTileSlots: up to the last row's position
  int32_t block_size;
  int32_t key_dim;
  int32_t value_dim;
  int32_t value_stride;
  int32_t dim_stride;  // value_dim rounded up to 32
  int32_t group;       // q_heads / kv_heads
  int32_t row_begin;   // the rows of the item that see the tile: [row_begin, row_end)
  int32_t row_end;
  int32_t valid;          // row_begin sees slots below it, 1 .. kTileSlots; every further row one more
  int32_t hidden;         // row_begin sees slots from it on (its window), below 0 all; every further row one less
  int32_t position;       // of the first slot
  bool first;             // of its split: the states are not yet set
  const float* k_scales;  // [kTileSlots] of a quantised cache, whose slots hold codes; or nullptr
  const float* v_scales;
  const float* slopes;  // [group] of ALiBi, or nullptr
  float cap_before;     // scores s become cap_after * tanh(cap_before * s); 0: they stay
  float cap_after;
  float scale_log2;      // scale * log2(e)
  const char* q;         // packed queries, kQueryBytes apart
  float* scores;         // scratch [queries, kTileSlots]
  float* factors;        // scratch [2, queries rounded up to kMaxLanes]
  AttentionState state;  // in and out
};

// Rows of queries, of `group` heads side by side, head_dim elements each: key_dim where they are packed, else
// value_dim.
struct AttentionRows {
  int32_t row_begin;
  int32_t row_end;
  int32_t group;
  int32_t head_dim;
  int32_t dim_stride;
};

// Records of a quantised cache, those of an octet's slots one behind the other.
struct AttentionRecords {
  int quantization;  // index: that of a KvQuantization's value
  int32_t record_bytes;
  int32_t head_dim;
  int32_t num_slots;  // those that may be read
};

struct AttentionKernels {
  // Rounds queries to the cache's type and packs them. `q` is that of row 0, rows are row_stride elements apart.
  void (*pack)(const AttentionRows& rows, const float* q, int64_t row_stride, char* packed);

  // Writes the slots' rows, value_stride elements apart in tile.slots.v, as a tile of keys [key_dim /
  // 2][kTileSlots][2].
  void (*transpose)(const AttentionTile& tile, char* keys);

  // Writes the codes of a tile's records as rows [kTileSlots][head_dim] of bfloat16, and their scales [kTileSlots];
  // fetches those of the next tile meanwhile.
  void (*expand)(const AttentionRecords& records, const char* const* octets, const char* const* next, float* scales,
                 char* rows);

  // Brings the states of the tile's rows forward by the tile.
  void (*tile)(const AttentionTile& tile);

  // total := total and then part.
  void (*merge)(const AttentionRows& rows, float scale_log2, const AttentionState& part, const AttentionState& total);

  // Sets the states of rows: nothing seen.
  void (*clear)(const AttentionRows& rows, const AttentionState& state);

  // sum := sum and the sinks of the heads, logits [group] that weigh no value.
  void (*sink)(const AttentionRows& rows, float scale_log2, const float* sinks, const AttentionState& total);

  // out := acc / sum, rounded to out's type (index: that of a DType's value). `out` is of row 0, rows are row_bytes
  // apart.
  void (*finish)(const AttentionRows& rows, const AttentionState& total, int out_dtype, char* out, int64_t row_bytes);
};

// By element type of the cache: the index is a DType's value. Each may be called only if SupportedCpuIsas() names its
// instruction set. The x86 ones exist only in x86-64 builds.
const AttentionKernels* PortableAttention();
const AttentionKernels* Avx2Attention();
const AttentionKernels* Avx512Attention();
const AttentionKernels* Avx512Bf16Attention();

}  // namespace quire::attention

#endif  // QUIRE_KERNELS_PAGED_ATTENTION_TILE_H_
