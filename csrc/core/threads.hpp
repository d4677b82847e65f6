// A small pool of std::thread: started on first use, rebuilt after a fork.
//
// No OpenMP: two copies of its run-time in one process (torch, faiss) abort or
// hang after a fork.
#pragma once

#include <cstddef>
#include <functional>
#include <stdexcept>

namespace ssbhash {

// Thrown on the calling thread when `poll` asked for a stop.
struct Interrupted : std::runtime_error {
    Interrupted() : std::runtime_error("interrupted") {}
};

// How a long call runs.
struct Schedule {
    std::size_t n_threads = 1;
    std::function<bool()> poll; // true: stop, throw Interrupted
};

// Run task(0) ... task(n_tasks - 1) on at most n_threads threads, the caller
// among them, and wait. The first exception of a task is rethrown here. The
// caller calls `poll` (if any) between its tasks; true stops the rest and
// throws Interrupted.
void parallel_for(std::size_t n_tasks, std::size_t n_threads,
                  const std::function<void(std::size_t)> &task,
                  const std::function<bool()> &poll = nullptr);

} // namespace ssbhash
