// A small pool of threads, started on first use and again after a fork.
//
// It is not OpenMP: two OpenMP run-times in one process (torch and faiss bring theirs) abort, or
// hang after a fork.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <stdexcept>

namespace ssbhash {

// Thrown on the calling thread when `poll` asked for a stop.
struct Interrupted : std::runtime_error {
    Interrupted() : std::runtime_error("interrupted") {}
};

// A long task calls `check` now and then. If the task should stop, `check` throws, and the task
// must let the exception pass.
using Check = std::function<void()>;

// How a long call runs.
struct Schedule {
    std::size_t n_threads = 1;
    std::function<bool()> poll;                  // true: stop, throw Interrupted
    std::shared_ptr<std::atomic<double>> done{}; // share of the work, for a progress bar; or null

    void advance(double share) const {
        if (done)
            done->fetch_add(share, std::memory_order_relaxed);
    }
    // For work on the calling thread, outside of parallel_for.
    Check check() const {
        return [this] {
            if (poll && poll())
                throw Interrupted();
        };
    }
};

using Task = std::function<void(std::size_t index, const Check &check)>;

// Runs task(0) ... task(n_tasks - 1) on at most n_threads threads, one of them the caller's, and
// waits. The first exception of a task is rethrown here. `poll`, if given, is called on the
// calling thread alone. If it returns true, no further task starts, running tasks stop at their
// next check, and Interrupted is thrown.
void parallel_for(std::size_t n_tasks, std::size_t n_threads, const Task &task,
                  const std::function<bool()> &poll = nullptr);

} // namespace ssbhash
