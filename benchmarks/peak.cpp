// Limits of this processor, for limits.py: multiply-adds, and reading from the first and
// second cache level. c++ -O3 -march=native -shared -fPIC
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace {

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif
typedef float Vector __attribute__((vector_size(lanes * 4)));

double cpu_seconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

}  // namespace

/// Billions of float32 operations per second of twelve independent chains of multiply-adds.
extern "C" double fma_gflops() {
  constexpr int n = 4000000;
  double best = 0;
  for (int round = 0; round < 7; ++round) {
    Vector a0{}, m = a0 + 0.999f, b = a0 + 1e-3f;  // chains that differ: equal ones would be merged
    Vector a1 = a0 + 1.0f, a2 = a0 + 2.0f, a3 = a0 + 3.0f, a4 = a0 + 4.0f, a5 = a0 + 5.0f;
    Vector a6 = a0 + 6.0f, a7 = a0 + 7.0f, a8 = a0 + 8.0f, a9 = a0 + 9.0f, a10 = a0 + 10.0f,
           a11 = a0 + 11.0f;
    const double start = cpu_seconds();
    for (int k = 0; k < n; ++k) {
      a0 = a0 * m + b, a1 = a1 * m + b, a2 = a2 * m + b, a3 = a3 * m + b, a4 = a4 * m + b,
      a5 = a5 * m + b;
      a6 = a6 * m + b, a7 = a7 * m + b, a8 = a8 * m + b, a9 = a9 * m + b, a10 = a10 * m + b,
      a11 = a11 * m + b;
    }
    const double rate = 24.0 * lanes * n / (cpu_seconds() - start) / 1e9;
    const Vector sum = a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9 + a10 + a11;
    volatile float keep = sum[0];
    (void)keep;
    best = rate > best ? rate : best;
  }
  return best;
}

/// Gigabytes per second of reading `bytes` (a multiple of 512) again and again.
extern "C" double read_gbytes(long bytes) {
  const long size = lanes * 4, n = bytes / size;
  auto* const memory = static_cast<Vector*>(std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096));
  std::memset(memory, 0, bytes);
  const long repeats = (1L << 29) / bytes;
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const double start = cpu_seconds();
    for (long r = 0; r < repeats; ++r) {
      for (long k = 0; k < n; k += 8) {
        const Vector* const p = memory + k;
        asm volatile("" ::"x"(p[0]), "x"(p[1]), "x"(p[2]), "x"(p[3]), "x"(p[4]), "x"(p[5]),
                     "x"(p[6]), "x"(p[7]));
      }
    }
    const double rate = static_cast<double>(repeats * bytes) / (cpu_seconds() - start) / 1e9;
    best = rate > best ? rate : best;
  }
  std::free(memory);
  return best;
}
