// Runs a function on a few threads that live for this call only. So there is nothing to configure,
// and no thread is missing in a child process after a fork.
#pragma once

#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace scschnet::cpu {

/// Calls work(0) .. work(n_threads - 1), the first on this thread, waits for all, and rethrows the
/// first exception. Starting a thread takes about 20 microseconds.
template <class Work>
void run_on_threads(int n_threads, const Work& work) {
  if (n_threads <= 1) return work(0);
  std::vector<std::exception_ptr> errors(n_threads);
  const auto guarded = [&](int t) {
    try {
      work(t);
    } catch (...) {
      errors[t] = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(n_threads - 1);
  for (int t = 1; t < n_threads; ++t) {
    try {
      threads.emplace_back(guarded, t);
    } catch (const std::system_error&) {  // the system has no thread left: do its part here
      guarded(t);
    }
  }
  guarded(0);
  for (auto& thread : threads) thread.join();
  for (const auto& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace scschnet::cpu
