// store/base/shared_vector.h -- SharedVector: a sequence that only grows and shrinks at its end,
// whose copies share their elements, so that copying costs nothing however long it is. A copy that
// appends does so behind the elements it shares, unless another one was first: then it takes its
// own. Elements are never changed, so copies may be used from different threads, one copy by one
// thread at a time.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include "store/base/check.h"

namespace corpusd {

template <typename T>
class SharedVector {
 public:
  using value_type = T;
  using size_type = size_t;
  using const_reference = const T&;
  using const_iterator = const T*;
  using iterator = const_iterator;

  SharedVector() = default;
  // Both ways without a word, so that it is used as the std::vector it stands for.
  SharedVector(std::vector<T> elements) : size_(elements.size()) {
    if (size_ > 0) Adopt(std::move(elements));
  }
  SharedVector(std::initializer_list<T> elements) : SharedVector(std::vector<T>(elements)) {}
  template <std::input_iterator Iterator>
  SharedVector(Iterator first, Iterator last) : SharedVector(std::vector<T>(first, last)) {}
  operator std::vector<T>() const { return {begin(), end()}; }
  SharedVector(const SharedVector&) = default;
  SharedVector& operator=(const SharedVector&) = default;
  SharedVector(SharedVector&& other) noexcept { *this = std::move(other); }
  SharedVector& operator=(SharedVector&& other) noexcept {
    buffer_ = std::move(other.buffer_);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  const T* data() const { return data_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  auto rbegin() const { return std::make_reverse_iterator(end()); }
  auto rend() const { return std::make_reverse_iterator(begin()); }
  const T& operator[](size_t index) const { return data_[index]; }
  const T& front() const { return data_[0]; }
  const T& back() const { return data_[size_ - 1]; }

  void push_back(T element) {
    MakeRoom(1);
    buffer_->elements.push_back(std::move(element));
    Point(size_ + 1);
  }
  template <std::forward_iterator Iterator>
  void append(Iterator first, Iterator last) {
    const auto count = static_cast<size_t>(std::distance(first, last));
    if (count == 0) return;
    MakeRoom(count);
    buffer_->elements.insert(buffer_->elements.end(), first, last);
    Point(size_ + count);
  }
  // REQUIRES: size is not above what it is.
  void resize(size_t size) {
    CHECK(size <= size_) << size << " of " << size_;
    size_ = size;
  }
  void pop_back() { resize(size_ - 1); }
  void clear() { *this = SharedVector(); }

  // How many elements both begin with; in no time if they share them.
  size_t CommonPrefix(const SharedVector& other) const {
    const size_t shorter = std::min(size_, other.size_);
    if (data_ == other.data_) return shorter;
    return static_cast<size_t>(std::mismatch(begin(), begin() + shorter, other.begin()).first -
                               begin());
  }
  friend bool operator==(const SharedVector& a, const SharedVector& b) {
    return a.size_ == b.size_ && a.CommonPrefix(b) == a.size_;
  }

 private:
  // Its vector never moves its elements: what is appended fits into what was reserved. `used` says
  // how many there are, and whose turn it is to append: who has that many.
  struct Buffer {
    std::vector<T> elements;
    std::atomic<size_t> used{0};
  };

  void Adopt(std::vector<T> elements) {
    buffer_ = std::make_shared<Buffer>();
    buffer_->used = elements.size();
    buffer_->elements = std::move(elements);
    data_ = buffer_->elements.data();
  }
  // Takes the turn to append so many elements, in a buffer of its own if need be.
  void MakeRoom(size_t count) {
    if (buffer_ != nullptr && buffer_->elements.capacity() - size_ >= count) {
      size_t expected = size_;
      if (buffer_->used.compare_exchange_strong(expected, size_ + count)) return;
    }
    std::vector<T> own;
    own.reserve(std::max(size_ + count, 2 * size_));
    own.assign(begin(), end());
    Adopt(std::move(own));
    buffer_->used = size_ + count;
  }
  void Point(size_t size) {
    data_ = buffer_->elements.data();
    size_ = size;
  }

  std::shared_ptr<Buffer> buffer_;
  const T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace corpusd
