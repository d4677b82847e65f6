// torch.ops.ssbhash_cuda.*: the kernels with torch's tensors, by torch's stable ABI, so that one
// binary serves every torch from 2.10 on. The caller (ssbhash/engines/cuda.py) allocates all
// memory; an operator only starts kernels, on the tensors' device and its current stream.
#include "cuda/sampling.hpp"
#include "cuda/search.hpp"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>

#if defined(SSBHASH_EMULATED)
#define SSBHASH_DEVICE_KEY CPU
#else
#define SSBHASH_DEVICE_KEY CUDA
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void **stream);
#endif

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;
namespace device = ssbhash::cuda;

#if defined(SSBHASH_EMULATED)
struct Queue {
    explicit Queue(const Tensor &) {}
    cudaStream_t stream = nullptr;
};
#else
// The tensor's device is the current one while this lives.
struct Queue {
    explicit Queue(const Tensor &tensor) : guard(tensor.get_device_index()) {
        void *current = nullptr;
        TORCH_ERROR_CODE_CHECK(
            aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &current));
        stream = static_cast<cudaStream_t>(current);
    }
    torch::stable::accelerator::DeviceGuard guard;
    cudaStream_t stream;
};
#endif

void check(cudaError_t error) {
    STD_TORCH_CHECK(error == cudaSuccess, "ssbhash: CUDA says: ", cudaGetErrorString(error));
}

template <typename T>
T *pointer(const Tensor &tensor) {
    STD_TORCH_CHECK(tensor.is_contiguous() && tensor.element_size() == sizeof(T),
                    "ssbhash: a contiguous tensor of ", sizeof(T), " bytes an element is needed");
    return static_cast<T *>(tensor.data_ptr());
}

template <typename T>
T *pointer(const MaybeTensor &tensor) {
    return tensor ? pointer<T>(*tensor) : nullptr;
}

device::searching::DeviceCodes codes_of(const Tensor &codes) {
    return {pointer<std::uint8_t>(codes), codes.size(0), static_cast<std::int32_t>(codes.size(1))};
}

// Words of the planes, bytes of scratch for each query, whether there is a plane kernel, and one
// for the matrix units, and multiprocessors.
std::tuple<std::int64_t, std::int64_t, bool, bool, std::int64_t> facts(Tensor codes) {
    using namespace device::searching;
    const Queue queue(codes);
    int current = 0, multiprocessors = 0;
    check(cudaGetDevice(&current));
    check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, current));
    const auto n_bytes = static_cast<std::int32_t>(codes.size(1));
    return {plane_words(codes.size(0), n_bytes), scratch_bytes(1, n_bytes),
            has_plane_kernel(n_bytes), has_matrix_kernel(codes_of(codes)), multiprocessors};
}

void make_planes(Tensor codes, Tensor planes) {
    const Queue queue(codes);
    check(device::searching::make_planes(codes_of(codes), pointer<std::uint32_t>(planes),
                                         queue.stream));
}

void scan(std::int64_t kernel, Tensor codes, MaybeTensor planes, MaybeTensor allowed,
          std::int64_t first_id, Tensor queries, std::int64_t k, Tensor limits, MaybeTensor counts,
          MaybeTensor starts, Tensor found, Tensor n_found, std::int64_t capacity, Tensor scratch,
          std::int64_t n_sample, MaybeTensor nearest) {
    using namespace device::searching;
    const Queue queue(codes);
    const Search search{static_cast<Kernel>(kernel),
                        codes_of(codes),
                        pointer<std::uint32_t>(planes),
                        pointer<std::uint32_t>(allowed),
                        first_id,
                        pointer<std::uint8_t>(queries),
                        queries.size(0),
                        k,
                        pointer<std::int32_t>(limits),
                        pointer<std::uint32_t>(counts),
                        pointer<std::int64_t>(starts),
                        pointer<std::int64_t>(found),
                        pointer<std::int64_t>(n_found),
                        capacity,
                        static_cast<std::int32_t>(n_found.size(1))};
    if (n_sample > 0)
        check(sample_limits(search, n_sample, queue.stream));
    check(device::searching::scan(search, pointer<std::uint8_t>(scratch), queue.stream));
    if (nearest)
        check(select_nearest(search, pointer<std::int64_t>(nearest), queue.stream));
}

void distances(Tensor codes, Tensor queries, Tensor out) {
    const Queue queue(codes);
    check(device::searching::distances(codes_of(codes), pointer<std::uint8_t>(queries),
                                       queries.size(0), pointer<std::uint16_t>(out), queue.stream));
}

device::DeviceLogits logits_of(const Tensor &logits, const Tensor &bad_row) {
    const ScalarType type = logits.scalar_type();
    STD_TORCH_CHECK(type == ScalarType::Half || type == ScalarType::BFloat16 ||
                        type == ScalarType::Float || type == ScalarType::Double,
                    "ssbhash: logits must be float16, bfloat16, float32 or float64");
    return {logits.data_ptr(),
            logits.size(0),
            static_cast<std::int32_t>(logits.size(1)),
            logits.stride(0),
            logits.stride(1),
            type == ScalarType::Half       ? ssbhash::LogitType::float16
            : type == ScalarType::BFloat16 ? ssbhash::LogitType::bfloat16
            : type == ScalarType::Float    ? ssbhash::LogitType::float32
                                           : ssbhash::LogitType::float64,
            pointer<std::int64_t>(bad_row)};
}

// Seeds and row numbers are those of 64 bits, which torch counts as signed.
void sample(Tensor logits, std::int64_t seed, std::int64_t first_row, Tensor codes,
            Tensor bad_row) {
    const Queue queue(logits);
    check(device::sample(logits_of(logits, bad_row), static_cast<std::uint64_t>(seed),
                         static_cast<std::uint64_t>(first_row), codes.size(0),
                         pointer<std::uint8_t>(codes), queue.stream));
}

void binarize(Tensor logits, Tensor thresholds, Tensor codes, Tensor bad_row) {
    const Queue queue(logits);
    const bool is_wide = logits.scalar_type() == ScalarType::Double;
    check(device::binarize(logits_of(logits, bad_row),
                           is_wide ? static_cast<const void *>(pointer<double>(thresholds))
                                   : static_cast<const void *>(pointer<float>(thresholds)),
                           pointer<std::uint8_t>(codes), queue.stream));
}

void sample_relaxed(Tensor logits, std::int64_t seed, std::int64_t first_row, double tau,
                    Tensor relaxed, Tensor bad_row) {
    const Queue queue(logits);
    check(device::sample_relaxed(logits_of(logits, bad_row), tau, static_cast<std::uint64_t>(seed),
                                 static_cast<std::uint64_t>(first_row), pointer<float>(relaxed),
                                 queue.stream));
}

} // namespace

STABLE_TORCH_LIBRARY(ssbhash_cuda, library) {
    library.def("facts(Tensor codes) -> (int, int, bool, bool, int)");
    library.def("make_planes(Tensor codes, Tensor(a!) planes) -> ()");
    library.def("scan(int kernel, Tensor codes, Tensor? planes, Tensor? allowed, int first_id, "
                "Tensor queries, "
                "int k, Tensor(a!) limits, Tensor(b!)? counts, Tensor? starts, Tensor(c!) found, "
                "Tensor(d!) n_found, int capacity, Tensor(e!) scratch, int n_sample, "
                "Tensor(f!)? nearest) -> ()");
    library.def("distances(Tensor codes, Tensor queries, Tensor(a!) out) -> ()");
    library.def("sample(Tensor logits, int seed, int first_row, Tensor(a!) codes, "
                "Tensor(b!) bad_row) -> ()");
    library.def("binarize(Tensor logits, Tensor thresholds, Tensor(a!) codes, "
                "Tensor(b!) bad_row) -> ()");
    library.def("sample_relaxed(Tensor logits, int seed, int first_row, float tau, "
                "Tensor(a!) relaxed, Tensor(b!) bad_row) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(ssbhash_cuda, SSBHASH_DEVICE_KEY, library) {
    library.impl("facts", TORCH_BOX(&facts));
    library.impl("make_planes", TORCH_BOX(&make_planes));
    library.impl("scan", TORCH_BOX(&scan));
    library.impl("distances", TORCH_BOX(&distances));
    library.impl("sample", TORCH_BOX(&sample));
    library.impl("binarize", TORCH_BOX(&binarize));
    library.impl("sample_relaxed", TORCH_BOX(&sample_relaxed));
}
