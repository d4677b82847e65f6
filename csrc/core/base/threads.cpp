#include "core/base/threads.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include <pthread.h>

namespace ssbhash {
namespace {

struct Job {
    const Task *task;
    std::size_t n_tasks;
    std::size_t helpers_wanted; // guarded by the pool's mutex, as is n_running
    std::size_t n_running = 0;
    std::atomic<std::size_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr error{}; // written by whoever sets `failed` first

    void fail(std::exception_ptr what) {
        if (!failed.exchange(true))
            error = what;
        next = n_tasks; // nobody starts another task
    }

    // One task; false if none is left.
    bool step(const Check &check) {
        const std::size_t index = next.fetch_add(1);
        if (index >= n_tasks)
            return false;
        try {
            (*task)(index, check);
        } catch (...) {
            fail(std::current_exception());
        }
        return true;
    }
};

class Pool {
  public:
    void run(Job &job) {
        {
            std::lock_guard lock(mutex_);
            while (n_workers_ < job.helpers_wanted && start_worker()) {
            }
            jobs_.push_back(&job);
        }
        wake_.notify_all();
    }

    // Lets no further worker join the job, and waits for those that did.
    void finish(Job &job) {
        std::unique_lock lock(mutex_);
        if (auto it = std::find(jobs_.begin(), jobs_.end(), &job); it != jobs_.end())
            jobs_.erase(it);
        done_.wait(lock, [&] { return job.n_running == 0; });
    }

  private:
    bool start_worker() {
        try {
            std::thread([this] { work(); }).detach();
        } catch (const std::system_error &) { // no more threads: fewer will do
            return false;
        }
        ++n_workers_;
        return true;
    }

    void work() {
        std::unique_lock lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return !jobs_.empty(); });
            Job &job = *jobs_.front();
            ++job.n_running;
            if (--job.helpers_wanted == 0)
                jobs_.pop_front();
            lock.unlock();
            const Check check = [&job] {
                if (job.failed.load(std::memory_order_relaxed))
                    throw Interrupted();
            };
            while (job.step(check)) {
            }
            lock.lock();
            --job.n_running;
            done_.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::deque<Job *> jobs_; // those that still want helpers
    std::size_t n_workers_ = 0;
};

std::atomic<Pool *> pool{nullptr};

// The pool is never destroyed, for its threads may outlive static destructors. A forked child
// has none of its parent's threads, so it makes a pool of its own.
Pool &shared_pool() {
    static const int registered =
        pthread_atfork(nullptr, nullptr, [] { pool.store(nullptr, std::memory_order_relaxed); });
    (void)registered;
    Pool *current = pool.load();
    if (current == nullptr) {
        auto fresh = std::make_unique<Pool>();
        if (pool.compare_exchange_strong(current, fresh.get()))
            current = fresh.release();
    }
    return *current;
}

// The caller's share of the job.
void work_on(Job &job, const std::function<bool()> &poll) {
    const Check check = [&] {
        if (job.failed.load(std::memory_order_relaxed) || (poll && poll()))
            throw Interrupted();
    };
    while (job.step(check))
        if (poll && poll())
            job.fail(std::make_exception_ptr(Interrupted()));
}

} // namespace

void parallel_for(std::size_t n_tasks, std::size_t n_threads, const Task &task,
                  const std::function<bool()> &poll) {
    if (n_tasks == 0)
        return;
    Job job{&task, n_tasks, std::min(std::max<std::size_t>(n_threads, 1), n_tasks) - 1};
    if (job.helpers_wanted > 0) {
        Pool &workers = shared_pool();
        workers.run(job);
        work_on(job, poll);
        workers.finish(job);
    } else {
        work_on(job, poll);
    }
    if (job.failed)
        std::rethrow_exception(job.error);
}

} // namespace ssbhash
