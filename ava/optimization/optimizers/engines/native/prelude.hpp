// What every kernel starts with: number formats, random bits, codecs, sums along rows and columns.
// Nothing here knows a rule. All loops run over blocks that fit into the first cache.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

typedef int64_t i64;
typedef uint32_t u32;
struct bf16 { uint16_t raw; };
typedef _Float16 fp16;

static inline float from_bits(u32 raw) { float x; memcpy(&x, &raw, 4); return x; }
static inline u32 to_bits(float x) { u32 raw; memcpy(&raw, &x, 4); return raw; }

template <class T> static inline T get(const float* p, i64 i) { return (T)p[i]; }
template <class T> static inline T get(const double* p, i64 i) { return (T)p[i]; }
template <class T> static inline T get(const fp16* p, i64 i) { return (T)(float)p[i]; }
template <class T> static inline T get(const bf16* p, i64 i) { return (T)from_bits((u32)p[i].raw << 16); }

template <class T> static inline void put(float* p, i64 i, T x) { p[i] = (float)x; }
template <class T> static inline void put(double* p, i64 i, T x) { p[i] = (double)x; }
template <class T> static inline void put(fp16* p, i64 i, T x) { p[i] = (fp16)(float)x; }
template <class T> static inline void put(bf16* p, i64 i, T x) {
  const u32 raw = to_bits((float)x);
  const u32 nearest = (raw + 0x7FFFu + ((raw >> 16) & 1u)) >> 16;
  p[i].raw = (uint16_t)((raw & 0x7FFFFFFFu) > 0x7F800000u ? (raw >> 16) | 64u : nearest);
}

// ---- Random bits: Wellons' lowbias32 of seed, parameter, step, stream and place.

static inline u32 mix(u32 x) {
  x ^= x >> 16; x *= 0x7FEB352Du; x ^= x >> 15; x *= 0x846CA68Bu; return x ^ (x >> 16);
}
static inline u32 stream_key(i64 seed, i64 number, double step, u32 stream) {
  u32 base = mix((u32)seed ^ (u32)((uint64_t)seed >> 32));
  base = mix(base + (u32)number * 0x9E3779B1u);
  base = mix(base + (u32)(i64)step * 0x85EBCA6Bu);
  return mix(base + stream * 0xC2B2AE35u);
}
static inline u32 draw_at(u32 key, u32 place) { return place * 0x9E3779B1u + key; }  // to round with: a Weyl sequence
static inline u32 half_of(u32 draw, int half) { return half ? draw >> 16 : draw & 0xFFFFu; }
static inline u32 bits_at(u32 key, u32 place) { return mix((place * 0x9E3779B1u) ^ key); }
template <class T> static inline T random_at(u32 key, u32 place) { return (T)(bits_at(key, place) >> 8) * (T)(1.0 / 16777216.0); }

// Rounds to 16 bits, up with the probability of the way that is left below.
static inline float round_at_random(float x, u32 noise, int kept, float limit) {
  const u32 raw = to_bits(x);
  float y = from_bits(((raw + (noise >> (16 - kept))) >> kept) << kept);
  y = y > limit ? limit : y < -limit ? -limit : y;
  return (raw & 0x7F800000u) == 0x7F800000u ? x : y;
}
template <class T> static inline void put_at_random(bf16* p, i64 i, T x, u32 noise) {
  const float y = round_at_random((float)x, noise, 16, 3.3895313892515355e38f);
  p[i].raw = (uint16_t)(to_bits(y) >> 16);
}
template <class T> static inline void put_at_random(fp16* p, i64 i, T x, u32 noise) {
  p[i] = (fp16)round_at_random((float)x, noise, 13, 65504.0f);
}

// ---- Elementwise functions.

template <class T> static inline T sign_of(T x) { return (T)(x > 0) - (T)(x < 0); }
template <class T> static inline T larger(T x, T y) { return x < y ? y : x; }   // a NaN in x stays
template <class T> static inline T smaller(T x, T y) { return x > y ? y : x; }
static inline double at_least_1(i64 n) { return n > 1 ? (double)n : 1.0; }
static inline double mod_of(double x, double y) { return x - std::floor(x / y) * y; }

// An arc tangent that vectorises: a Chebyshev interpolant of atan(z) / z in z^2 on [0, 1], within 1e-8.
static inline float angle_of(float y, float x) {
  const float ax = std::fabs(x), ay = std::fabs(y), low = ax < ay ? ax : ay, high = ax < ay ? ay : ax;
  const float z = high > 0 ? low / high : 0.0f, s = z * z;
  float a = 0.0027662834618240595f;
  a = a * s + -0.015731249004602432f;
  a = a * s + 0.04213762283325195f;
  a = a * s + -0.07456854730844498f;
  a = a * s + 0.10618370771408081f;
  a = a * s + -0.14197798073291779f;
  a = a * s + 0.1999187171459198f;
  a = a * s + -0.333330363035202f;
  a = a * s + 1.0f;
  a *= z;
  a = ay > ax ? 1.5707963267948966f - a : a;
  a = x < 0 ? 3.141592653589793f - a : a;
  return std::copysign(a, y);
}
static inline double angle_of(double y, double x) { return std::atan2(y, x); }

// A logarithm and a cosine that vectorise. 2 atanh((m - 1) / (m + 1)) of the fraction, which is within sqrt(2) of 1; the
// cosine's series on [-pi, pi], within 1e-7.
static inline float log_of(float x) {
  const u32 raw = to_bits(x);
  const u32 shifted = raw - 0x3F3504F3u;  // fractions from sqrt(1/2) to sqrt(2)
  const float e = (float)((int)shifted >> 23);
  const float m = from_bits((shifted & 0x007FFFFFu) + 0x3F3504F3u);
  const float s = (m - 1.0f) / (m + 1.0f), z = s * s;
  const float series = 1.0f + z * (0.33333333f + z * (0.2f + z * (0.14285714f + z * (0.11111111f + z * 0.09090909f))));
  const float y = e * 0.693147180f + 2.0f * s * series;
  return x > 0 ? (x < INFINITY ? y : x) : (x == 0 ? -INFINITY : NAN);
}
static inline double log_of(double x) { return std::log(x); }
static inline float cos_of(float x) {
  const float k = std::rint(x * 0.15915494f);
  const float r = (x - k * 6.28318548f) + k * 1.74845553e-7f, y = r * r;
  float c = -1.5619206968586225e-16f;
  c = c * y + 4.779477332387385e-14f;
  c = c * y + -1.1470745597729725e-11f;
  c = c * y + 2.08767569878681e-09f;
  c = c * y + -2.755731922398589e-07f;
  c = c * y + 2.48015873015873e-05f;
  c = c * y + -0.001388888888888889f;
  c = c * y + 0.041666666666666664f;
  c = c * y + -0.5f;
  c = c * y + 1.0f;
  return c;
}
static inline double cos_of(double x) { return std::cos(x); }

// ---- Rows and columns: where a block of `n` elements begins in a matrix of so many columns.

struct Place { i64 row, col, cols; };
static inline Place place_of(i64 b, i64 cols) { const i64 row = b / cols; return {row, b - row * cols, cols}; }

#define EACH_SEGMENT(at, n)                                                                       \
  for (i64 j_ = 0, row = at.row, col = at.col, m; j_ < (n); j_ += m, ++row, col = 0)              \
    if (m = at.cols - col < (n) - j_ ? at.cols - col : (n) - j_, true)

template <class T> static void expand_rows(T* out, const double* value, Place at, i64 n) {
  EACH_SEGMENT(at, n) { const T x = (T)value[row]; T* o = out + j_;
    _Pragma("GCC ivdep") for (i64 j = 0; j < m; ++j) o[j] = x; (void)col; }
}
template <class T> static void expand_cols(T* out, const double* value, Place at, i64 n) {
  EACH_SEGMENT(at, n) { T* o = out + j_; const double* v = value + col;
    _Pragma("GCC ivdep") for (i64 j = 0; j < m; ++j) o[j] = (T)v[j]; }
}
template <class T> static void add_rows(double* sums, const T* x, i64 first, Place at, i64 n) {
  EACH_SEGMENT(at, n) { const T* v = x + j_; T s = 0; (void)col;
    _Pragma("GCC ivdep") for (i64 j = 0; j < m; ++j) s += v[j];
    sums[row - first] += (double)s; }
}
template <class T> static void add_cols(T* sums, const T* x, Place at, i64 n) {
  EACH_SEGMENT(at, n) { const T* v = x + j_; T* s = sums + col;
    _Pragma("GCC ivdep") for (i64 j = 0; j < m; ++j) s[j] += v[j]; }
}

// Asks for the memory that the next block will walk over, while this one is worked on.
template <class V> static inline void fetch(const V* p, i64 n) {
  for (i64 i = 0; i < n; i += 64 / (i64)sizeof(V)) __builtin_prefetch(p + i, 1);
}

// ---- Codecs; their formats are described beside their torch twins (storage/*.py).

static const int KEPT = 19;  // of a float's bits, 8-bit codes leave out so many
template <class C> struct Code;
template <> struct Code<int8_t> { static const int bias = 0x3B900000, last = 127; };
template <> struct Code<uint8_t> { static const int bias = 0x37900000, last = 255; };

template <class T, class C> static inline T decode_8bit(C code, float scale) {
  const int x = code, a = x < 0 ? -x : x;
  const float share = (from_bits(((u32)a << KEPT) + Code<C>::bias) - from_bits(Code<C>::bias)) * scale;
  return (T)(x < 0 ? -share : share);
}
// The largest magnitude: floats of one sign are ordered as their bits are.
template <class T> static inline void raise(int& most, T x) {
  const int bits = (int)to_bits(std::fabs((float)x)); most = bits > most ? bits : most;
}
static inline float one_over(float scale) { return 1.0f / (scale > 1e-38f ? scale : 1e-38f); }
template <class T, class C> static inline C encode_8bit(T value, float over, u32 noise) {
  const float x = (float)value;
  const u32 raised = to_bits(std::fabs(x) * over + from_bits(Code<C>::bias)) + (noise << (KEPT - 16));
  int a = (int)(raised - Code<C>::bias) >> KEPT; a = a > Code<C>::last ? Code<C>::last : a;
  if ((C)-1 < 0) return (C)(x < 0 ? -a : a);
  return (C)(x > 0 && a < 1 ? 1 : a);
}
// Signs as bits, the lowest first, of a block that starts at a multiple of 8 elements; and as the sign bits of floats.
static inline float flip(float x, u32 sign) { return from_bits(to_bits(x) ^ sign); }
static inline double flip(double x, u32 sign) { return sign ? -x : x; }
static void expand_signs(u32* out, const uint8_t* bits, i64 b, i64 n) {
  const uint8_t* s = bits + b / 8;
  i64 j = 0;
#if defined(__AVX512F__)
  for (; j + 16 <= n; j += 16) { uint16_t word; memcpy(&word, s + j / 8, 2);
    _mm512_storeu_si512(out + j, _mm512_maskz_set1_epi32((__mmask16)~word, (int)0x80000000)); }
#endif
  for (; j + 8 <= n; j += 8) { const u32 byte = s[j / 8]; u32* o = out + j;
    _Pragma("GCC ivdep") for (u32 k = 0; k < 8; ++k) o[k] = (~(byte >> k)) << 31; }
  for (; j < n; ++j) out[j] = (s[j / 8] >> (j % 8)) & 1 ? 0u : 0x80000000u;
}
template <class T> static i64 store_signs_fast(uint8_t*, const T*, i64) { return 0; }
#if defined(__AVX512F__)
template <> i64 store_signs_fast(uint8_t* s, const float* x, i64 n) {
  const __m512 zero = _mm512_setzero_ps();
  i64 j = 0;
  for (; j + 16 <= n; j += 16) {
    const uint16_t word = (uint16_t)_mm512_cmp_ps_mask(_mm512_loadu_ps(x + j), zero, _CMP_GT_OQ);
    memcpy(s + j / 8, &word, 2); }
  return j;
}
#endif
template <class T> static void store_signs(uint8_t* bits, const T* x, i64 b, i64 n) {
  uint8_t* s = bits + b / 8;
  i64 j = store_signs_fast<T>(s, x, n);
  for (; j < n; j += 8) { uint8_t byte = 0;
    for (i64 k = 0; k < 8 && j + k < n; ++k) byte |= (uint8_t)((x[j + k] > 0) << k);
    s[j / 8] = byte; }
}

// ---- Pieces of a parameter: what each has gathered, put together in their order, so that sums do not depend on threads.

static inline i64 item_rows(const i64* item, i64 cols) { return (item[2] - 1) / cols - item[1] / cols + 1; }
template <class V> static inline V* clear(V* x, i64 n) { memset((void*)x, 0, n * sizeof(V)); return x; }
static void add_item_rows(double* out, const double* S, const i64* item, int column, int place, i64 cols) {
  const i64 count = item_rows(item, cols), first = item[1] / cols;
  const double* part = S + item[column] + place * count;
  for (i64 i = 0; i < count; ++i) out[first + i] += part[i];
}
template <class T> static void add_item_cols(double* out, const double* S, const i64* item, int column, int place, i64 cols) {
  const T* part = (const T*)(S + item[column]) + place * cols;
  for (i64 i = 0; i < cols; ++i) out[i] += (double)part[i];
}
