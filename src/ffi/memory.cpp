// Memory of large CPU tensors: freed blocks are kept and given out again. glibc gives a large block back to the kernel on
// every free, and a training step then spends a quarter of its time in page faults.
//
// One region of address space is reserved. Blocks lie in it one after the other; free ranges are merged and the smallest
// that fits is taken. Before the process would grow, pages of other free ranges go back to the kernel, so that what is
// resident stays near what was in use at once. Blocks below `kLarge` are malloc's.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <mutex>
#include <unordered_map>

#include "shim.h"

namespace {

constexpr size_t kLarge = size_t{256} << 10;
constexpr size_t kGranule = size_t{16} << 10;
constexpr size_t kHugePage = size_t{2} << 20;
// Idle pages that are tolerated while the process grows: as much, or a sixteenth of what is in use.
constexpr size_t kSlack = size_t{32} << 20;

size_t physical_memory() {
  auto pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGE_SIZE);
  return pages > 0 && size > 0 ? static_cast<size_t>(pages) * static_cast<size_t>(size) : size_t{16} << 30;
}

class Pool {
 public:
  Pool() {
    // Address space alone costs nothing, and fragmentation wants plenty. A limit on it (ulimit -v) may refuse some.
    for (size_t size = 8 * physical_memory(); base_ == nullptr && size >= physical_memory() / 4; size /= 2) {
      void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (at == MAP_FAILED) continue;
      auto start = reinterpret_cast<uintptr_t>(at);
      auto shift = (kHugePage - start % kHugePage) % kHugePage;
      base_ = static_cast<char*>(at) + shift;
      size_ = size - kHugePage;
      // Refused where the kernel has no huge pages: slower, nothing else.
      (void)madvise(base_, size_, MADV_HUGEPAGE);
    }
  }

  bool owns(const void* at) const {
    auto p = static_cast<const char*>(at);
    return base_ != nullptr && p >= base_ && p < base_ + size_;
  }

  // Null where the region is missing or full.
  void* take(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (base_ == nullptr) return nullptr;
    size_t size = (bytes + kGranule - 1) / kGranule * kGranule;
    auto best = free_.end();
    for (auto it = free_.begin(); it != free_.end(); ++it) {
      if (it->second.size >= size && (best == free_.end() || it->second.size < best->second.size)) best = it;
    }
    if (best == free_.end()) best = grow(size);
    if (best == free_.end()) return nullptr;
    auto [offset, range] = *best;
    // The start of a range is what was touched; an estimate where ranges were merged.
    size_t warm = std::min(range.touched, size);
    idle_ -= warm;
    free_.erase(best);
    if (range.size > size) free_[offset + size] = Range{range.size - size, range.touched - warm};
    if (size > warm) shrink(size - warm);
    used_ += size;
    peak_ = std::max(peak_, used_);
    sizes_[offset] = size;
    return base_ + offset;
  }

  void give(void* at) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto offset = static_cast<size_t>(static_cast<char*>(at) - base_);
    auto found = sizes_.find(offset);
    TORCH_INTERNAL_ASSERT(found != sizes_.end(), "a block that was not given out is freed");
    size_t size = found->second;
    sizes_.erase(found);
    used_ -= size;
    idle_ += size;
    auto here = free_.emplace(offset, Range{size, size}).first;
    auto next = std::next(here);
    if (next != free_.end() && offset + size == next->first) merge(here, next);
    if (here != free_.begin()) {
      auto before = std::prev(here);
      if (before->first + before->second.size == here->first) merge(before, here);
    }
  }

  size_t used() {
    std::lock_guard<std::mutex> lock(mutex_);
    return used_;
  }

  size_t peak(bool reset) {
    std::lock_guard<std::mutex> lock(mutex_);
    size_t peak = peak_;
    if (reset) peak_ = used_;
    return peak;
  }

  void release() {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& [offset, range] : free_) discard(offset, range);
  }

 private:
  struct Range {
    size_t size;
    size_t touched;
  };
  using Ranges = std::map<size_t, Range>;

  // A free range of `size` at the end of what has ever been used, of which the last free range is a part.
  Ranges::iterator grow(size_t size) {
    auto last = free_.empty() ? free_.end() : std::prev(free_.end());
    bool joins = last != free_.end() && last->first + last->second.size == end_;
    size_t start = joins ? last->first : end_;
    if (size > size_ - start) return free_.end();
    end_ = start + size;
    if (!joins) return free_.emplace(start, Range{size, 0}).first;
    last->second.size = size;
    return last;
  }

  // `bytes` of fresh pages are about to be touched: as many idle ones go, the largest ranges first.
  void shrink(size_t bytes) {
    size_t slack = std::max(kSlack, used_ / 16);
    while (bytes > 0 && idle_ > slack) {
      auto largest = std::max_element(free_.begin(), free_.end(), [](auto& a, auto& b) {
        return a.second.touched < b.second.touched;
      });
      if (largest == free_.end() || largest->second.touched == 0) return;
      size_t gone = largest->second.touched;
      discard(largest->first, largest->second);
      bytes -= std::min(bytes, gone);
    }
  }

  void discard(size_t offset, Range& range) {
    if (range.touched == 0) return;
    (void)madvise(base_ + offset, range.size, MADV_DONTNEED);
    idle_ -= range.touched;
    range.touched = 0;
  }

  void merge(Ranges::iterator first, Ranges::iterator second) {
    first->second.size += second->second.size;
    first->second.touched += second->second.touched;
    free_.erase(second);
  }

  std::mutex mutex_;
  char* base_ = nullptr;
  size_t size_ = 0, end_ = 0, used_ = 0, peak_ = 0, idle_ = 0;
  Ranges free_;
  std::unordered_map<size_t, size_t> sizes_;
};

// Never destroyed: tensors may outlive every other static.
Pool& pool() {
  static auto* pool = new Pool;
  return *pool;
}

void release_block(void* at) {
  if (at == nullptr) return;
  if (pool().owns(at)) {
    pool().give(at);
  } else {
    c10::free_cpu(at);
  }
}

class PoolAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* at = bytes >= kLarge ? pool().take(bytes) : nullptr;
    if (at == nullptr) at = c10::alloc_cpu(bytes);
    return {at, at, &release_block, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release_block; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};

// Before main, so that every tensor of the process is allocated here; libtorch's own allocator has priority 0.
[[maybe_unused]] const bool installed = [] {
  c10::SetCPUAllocator(new PoolAllocator, /*priority=*/1);
  return true;
}();

}  // namespace

extern "C" {

int64_t collimate_cpu_used_bytes() { return static_cast<int64_t>(pool().used()); }

int64_t collimate_cpu_peak_bytes(int reset) { return static_cast<int64_t>(pool().peak(reset != 0)); }

void collimate_cpu_release() { pool().release(); }
}
