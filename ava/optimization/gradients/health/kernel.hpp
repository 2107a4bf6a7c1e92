// One walk over the gradients: squares, sums, extremes, zeros, and what is not finite; and a conditional multiplication.
//
// Blocks of 1024 elements are summed in the type they are computed in, 32 or 64 to a lane, and blocks in double. A block
// whose squares do not fit (or vanish) is walked again in a wider type, so a sum is infinite only where an element is.
// Pieces are put together in their order: the result does not depend on the number of threads.

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

typedef int64_t i64;
typedef _Float16 fp16;
struct bf16 { uint16_t raw; };

enum Code { FLOAT32, FLOAT64, BFLOAT16, FLOAT16 };
static const i64 BLOCK = 1024, PIECE = 32 * 1024;
static const double INF = std::numeric_limits<double>::infinity();

// ---- Elements: what type they are computed in (`Of`), 64 bytes of it as a vector, and how they are read and written.

typedef float f32v __attribute__((vector_size(64)));
typedef double f64v __attribute__((vector_size(64)));
typedef uint32_t u32v __attribute__((vector_size(64)));
typedef uint16_t u16h __attribute__((vector_size(32)));
typedef fp16 f16h __attribute__((vector_size(32)));

template <class V> struct Of { typedef float T; typedef f32v Vector; typedef double Wide; };
template <> struct Of<double> { typedef double T; typedef f64v Vector; typedef long double Wide; };

static inline f32v load(const float* p) { f32v x; memcpy(&x, p, 64); return x; }
static inline f64v load(const double* p) { f64v x; memcpy(&x, p, 64); return x; }
static inline f32v load(const fp16* p) { f16h x; memcpy(&x, p, 32); return __builtin_convertvector(x, f32v); }
static inline f32v load(const bf16* p) {
  u16h x; memcpy(&x, p, 32);
  return (f32v)(__builtin_convertvector(x, u32v) << 16);
}
static inline float one(const float* p) { return *p; }
static inline double one(const double* p) { return *p; }
static inline float one(const fp16* p) { return (float)*p; }
static inline float one(const bf16* p) { const uint32_t raw = (uint32_t)p->raw << 16; float x; memcpy(&x, &raw, 4); return x; }

static inline void put(float* p, float x) { *p = x; }
static inline void put(double* p, double x) { *p = x; }
static inline void put(fp16* p, float x) { *p = (fp16)x; }
static inline void put(bf16* p, float x) {
  uint32_t raw; memcpy(&raw, &x, 4);
  const uint32_t nearest = (raw + 0x7FFFu + ((raw >> 16) & 1u)) >> 16;
  p->raw = (uint16_t)((raw & 0x7FFFFFFFu) > 0x7F800000u ? (raw >> 16) | 64u : nearest);
}

// A NaN in x leaves the extreme and the count as they are.
template <class Vector> static inline Vector larger(Vector x, Vector most) { return x > most ? x : most; }
template <class Vector> static inline Vector smaller(Vector x, Vector least) { return x < least ? x : least; }
template <class Vector> static inline Vector count_zeros(Vector x, Vector count) { return x == 0 ? count + 1 : count; }
#if defined(__AVX512F__)  // one instruction each, which compilers do not find by themselves
template <> f32v larger(f32v x, f32v most) { return (f32v)_mm512_max_ps((__m512)x, (__m512)most); }
template <> f32v smaller(f32v x, f32v least) { return (f32v)_mm512_min_ps((__m512)x, (__m512)least); }
template <> f32v count_zeros(f32v x, f32v count) {
  const __mmask16 zeros = _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_EQ_OQ);
  return (f32v)_mm512_mask_add_ps((__m512)count, zeros, (__m512)count, _mm512_set1_ps(1.0f));
}
#endif

// ---- What is found.

struct Found {
  long double squares = 0;  // of double elements they may be beyond double
  double sum = 0, zeros = 0, nans = 0, infs = 0, high = -INF, low = INF;
  void add(const Found& other) {
    squares += other.squares; sum += other.sum;
    zeros += other.zeros; nans += other.nans; infs += other.infs;
    high = other.high > high ? other.high : high;
    low = other.low < low ? other.low : low;
  }
};

// Squares of computing type T that are neither lost nor too large.
template <class T> static inline bool fits(T squares) {
  return sizeof(T) == 4 ? squares > (T)1e-24 && squares <= (T)FLT_MAX : squares > (T)1e-290 && squares <= (T)DBL_MAX;
}

template <class V> static void look_closely(const V* p, i64 n, Found& found) {
  typedef typename Of<V>::Wide Wide;
  Wide squares = 0;
  double sum = 0;
  i64 nans = 0, infs = 0;
  for (i64 i = 0; i < n; ++i) {
    const auto x = one(p + i);
    const auto size = std::fabs(x);
    squares += (Wide)x * (Wide)x;
    sum += (double)x;
    nans += x != x;
    infs += size == std::numeric_limits<decltype(size)>::infinity();
  }
  found.squares += squares; found.sum += sum;
  found.nans += (double)nans; found.infs += (double)infs;
}

template <class T, class Vector> static inline T sum_of(const Vector& x, const Vector& y) {
  T lanes[sizeof(Vector) / sizeof(T)], sum = 0;
  const Vector both = x + y;
  memcpy(lanes, &both, sizeof both);
  for (const T lane : lanes) sum += lane;
  return sum;
}

// A piece of a tensor. Two vectors at a time, for the additions wait for each other; extremes and zeros are put together
// at the piece's end only, and squares and sums at each block's.
template <class V, bool ALL> static void look(const V* p, i64 size, Found& found) {
  typedef typename Of<V>::T T;
  typedef typename Of<V>::Vector Vector;
  const i64 lanes = sizeof(Vector) / sizeof(T);
  const Vector none = {};
  Vector low0 = none + (T)INFINITY, low1 = low0, high0 = -low0, high1 = high0, zeros0 = none, zeros1 = none;
  T high = -(T)INFINITY, low = (T)INFINITY, zeros = 0;
  for (i64 begin = 0; begin < size; begin += BLOCK) {
    const i64 end = size - begin < BLOCK ? size : begin + BLOCK;
    Vector squares0 = none, squares1 = none, sum0 = none, sum1 = none;
    i64 i = begin;
    for (; i + 2 * lanes <= end; i += 2 * lanes) {
      const Vector x = load(p + i), y = load(p + i + lanes);
      squares0 += x * x; squares1 += y * y;
      if (ALL) {
        // With so much to do for each element, the processor by itself asks too late for what comes.
        __builtin_prefetch(p + i + BLOCK); __builtin_prefetch(p + i + BLOCK + lanes);
        sum0 += x; sum1 += y;
        high0 = larger(x, high0); high1 = larger(y, high1);
        low0 = smaller(x, low0); low1 = smaller(y, low1);
        zeros0 = count_zeros(x, zeros0); zeros1 = count_zeros(y, zeros1);
      }
    }
    T squares = sum_of<T>(squares0, squares1), sum = ALL ? sum_of<T>(sum0, sum1) : (T)0;
    for (; i < end; ++i) {
      const T x = one(p + i);
      squares += x * x;
      if (ALL) {
        sum += x; zeros += x == 0 ? (T)1 : (T)0;
        high = x > high ? x : high; low = x < low ? x : low;
      }
    }
    if (fits(squares)) { found.squares += squares; found.sum += sum; }
    else look_closely(p + begin, end - begin, found);
  }
  if (!ALL) return;
  zeros += sum_of<T>(zeros0, zeros1);
  for (i64 k = 0; k < lanes; ++k) {
    const T h = high0[k] > high1[k] ? high0[k] : high1[k], l = low0[k] < low1[k] ? low0[k] : low1[k];
    high = h > high ? h : high; low = l < low ? l : low;
  }
  found.zeros = (double)zeros; found.high = (double)high; found.low = (double)low;
}

template <class V> static void scale_piece(void* start, i64 begin, i64 end, double factor) {
  typedef typename Of<V>::T T;
  V* p = (V*)start;
  const T by = (T)factor;
  for (i64 i = begin; i < end; ++i) put(p + i, one(p + i) * by);
}

// ---- Pieces of tensors. A tensor is an address, a number of elements and a code of their type.

struct Piece { i64 tensor, begin, end; };

static std::vector<Piece> cut(i64 num, const i64* sizes) {
  std::vector<Piece> pieces;
  for (i64 t = 0; t < num; ++t)
    for (i64 i = 0; i < sizes[t]; i += PIECE) pieces.push_back({t, i, sizes[t] - i < PIECE ? sizes[t] : i + PIECE});
  return pieces;
}

#define WITH_TYPE(code, ...)                              \
  switch (code) {                                  \
    case FLOAT32: { typedef float V; __VA_ARGS__; break; }    \
    case FLOAT64: { typedef double V; __VA_ARGS__; break; }   \
    case BFLOAT16: { typedef bf16 V; __VA_ARGS__; break; }    \
    case FLOAT16: { typedef fp16 V; __VA_ARGS__; break; }     \
  }

// norms: each tensor's, in double, and that of all together at [num]. narrow: the same of each in float, never infinite
// where its elements are finite, and at [num] 1 if any element is not. summary: sum, zeros, nans, infs, max, -min.
extern "C" void gather(i64 num, i64 threads, i64 all, const i64* addresses, const i64* sizes, const i64* codes,
                       double* norms, float* narrow, double* summary) {
  const std::vector<Piece> pieces = cut(num, sizes);
  std::vector<Found> found(pieces.size());
  #pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (i64 k = 0; k < (i64)pieces.size(); ++k) {
    const Piece at = pieces[k];
    const void* start = (const void*)addresses[at.tensor];
    const i64 n = at.end - at.begin;
    WITH_TYPE(codes[at.tensor], all ? look<V, true>((const V*)start + at.begin, n, found[k])
                                    : look<V, false>((const V*)start + at.begin, n, found[k]))
  }
  Found whole;
  size_t k = 0;
  for (i64 t = 0; t < num; ++t) {
    Found tensor;
    for (; k < pieces.size() && pieces[k].tensor == t; ++k) tensor.add(found[k]);
    whole.add(tensor);
    norms[t] = (double)sqrtl(tensor.squares);
    narrow[t] = norms[t] > FLT_MAX && norms[t] < INF ? FLT_MAX : (float)norms[t];
  }
  norms[num] = (double)sqrtl(whole.squares);
  narrow[num] = norms[num] <= DBL_MAX ? 0.0f : 1.0f;
  const double told[6] = {whole.sum, whole.zeros, whole.nans, whole.infs, whole.high, -whole.low};
  if (all) memcpy(summary, told, sizeof told);
}

// Whether there is anything to multiply: asked first, for a table of tensors costs more than the answer.
extern "C" i64 is_due(const double* factor, const float* found_inf) { return *factor < 1.0 && *found_inf == 0.0f; }

extern "C" void scale(i64 num, i64 threads, const i64* addresses, const i64* sizes, const i64* codes,
                      const double* factor) {
  const std::vector<Piece> pieces = cut(num, sizes);
  #pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
  for (i64 k = 0; k < (i64)pieces.size(); ++k) {
    const Piece at = pieces[k];
    void* start = (void*)addresses[at.tensor];
    WITH_TYPE(codes[at.tensor], scale_piece<V>(start, at.begin, at.end, *factor))
  }
}
