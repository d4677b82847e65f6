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

// A task and what it calls now and then to learn whether it should stop: it
// throws then, and the task must let the exception pass.
using Check = std::function<void()>;
using Task = std::function<void(std::size_t index, const Check &check)>;

// Run task(0) ... task(n_tasks - 1) on at most n_threads threads, the caller
// among them, and wait. The first exception of a task is rethrown here. `poll`
// (if any) is called on the calling thread alone; where it returns true the
// rest is not run, tasks stop at their next check, and Interrupted is thrown.
void parallel_for(std::size_t n_tasks, std::size_t n_threads, const Task &task,
                  const std::function<bool()> &poll = nullptr);

} // namespace ssbhash
