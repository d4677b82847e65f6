// One function for each file of bindings; module.cpp calls them all.
#pragma once

#include "core/base/threads.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <utility>
#include <vector>

void bind_search(pybind11::module_ &m);
void bind_index(pybind11::module_ &m);
void bind_sampling(pybind11::module_ &m);
void bind_training(pybind11::module_ &m);

// An array that owns the values, without a copy.
template <typename T>
pybind11::array_t<T> as_array(std::vector<T> &&values) {
    auto owner = std::make_unique<std::vector<T>>(std::move(values));
    const T *data = owner->data();
    const auto size = static_cast<pybind11::ssize_t>(owner->size());
    const pybind11::capsule free(owner.get(),
                                 [](void *p) { delete static_cast<std::vector<T> *>(p); });
    owner.release();
    return pybind11::array_t<T>(size, data, free);
}

// Lets Ctrl-C end a long call, and calls `progress`, if it is not None, with the share of the work
// that is done: at most twenty times a second.
inline ssbhash::Schedule scheduled(std::size_t n_threads,
                                   const pybind11::object &progress = pybind11::none()) {
    auto last = std::make_shared<std::chrono::steady_clock::time_point>();
    *last = std::chrono::steady_clock::now();
    auto done = std::make_shared<std::atomic<double>>(0.0);
    // The caller holds the object; a reference of our own would have to be given back with the GIL.
    const pybind11::handle tell = progress;
    return {n_threads,
            [last, done, tell] {
                const auto now = std::chrono::steady_clock::now();
                if (now - *last < std::chrono::milliseconds(50))
                    return false;
                *last = now;
                pybind11::gil_scoped_acquire gil;
                try {
                    if (!tell.is_none())
                        tell(std::min(1.0, done->load()));
                } catch (pybind11::error_already_set &error) {
                    error.restore();
                    return true;
                }
                return PyErr_CheckSignals() != 0;
            },
            done};
}

// Runs without the GIL; an interrupt becomes the Python error that signals set.
template <typename Run>
void released(Run &&run) {
    bool interrupted = false;
    {
        pybind11::gil_scoped_release release;
        try {
            run();
        } catch (const ssbhash::Interrupted &) {
            interrupted = true;
        }
    }
    if (interrupted)
        throw pybind11::error_already_set();
}
