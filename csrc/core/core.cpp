// Placeholder replaced by the first real source.
namespace ssbhash {}
